//! In which order backends are tried. Pure.

use super::backend::State;

/// What the choice depends on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    pub(super) state: State,
    pub(super) connections: usize,
}

/// The places of all backends, best first: up before unknown before out, then the preferred one, then the one with the fewest
/// connections, then in turn.
pub(super) fn order(candidates: &[Candidate], prefer: Option<usize>, turn: usize) -> Vec<usize> {
    let mut places: Vec<usize> = (0..candidates.len()).collect();
    places.sort_by_key(|place| {
        let Candidate { state, connections } = candidates[*place];
        let distance = (place + candidates.len() - turn % candidates.len()) % candidates.len();
        (state, prefer != Some(*place), connections, distance)
    });
    places
}

#[cfg(test)]
mod tests {
    use super::*;
    use State::{Out, Unknown, Up};

    fn ordered(all: &[(State, usize)], prefer: Option<usize>, turn: usize) -> Vec<usize> {
        let candidate = |&(state, connections): &(State, usize)| Candidate { state, connections };
        order(&all.iter().map(candidate).collect::<Vec<_>>(), prefer, turn)
    }

    #[test]
    fn health_comes_first_then_preference_then_load_then_turns() {
        assert_eq!(ordered(&[(Out, 0), (Unknown, 0), (Up, 9)], Some(0), 0), [2, 1, 0]);
        assert_eq!(ordered(&[(Up, 3), (Up, 2), (Up, 9)], Some(2), 0), [2, 1, 0]);
        assert_eq!(ordered(&[(Up, 1), (Up, 1), (Up, 0)], None, 1), [2, 1, 0]);
        assert_eq!(ordered(&[(Out, 0), (Out, 0)], None, 1), [1, 0]);
        assert_eq!(ordered(&[(Up, 0)], None, 7), [0]);
    }
}
