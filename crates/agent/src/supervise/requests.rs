//! What clients ask for.

use std::time::Duration;

use bivouac_spec::Problem;
use rustix::event::epoll;

use super::Supervisor;
use crate::machine::Event;
use crate::protocol::{Reply, Request};

impl Supervisor {
    pub(super) fn serve(&mut self, client: u64, flags: epoll::EventFlags) {
        if flags.contains(epoll::EventFlags::OUT) {
            self.publisher.flush(client, &self.poll);
        }
        for request in self.publisher.server.read(client) {
            let stops = matches!(request, Ok(Request::Stop {}));
            let reply = match request {
                Ok(Request::Status { follow }) => {
                    let now = self.now();
                    self.publisher.answer(client, follow, &self.machine, now, &self.poll);
                    continue;
                }
                Ok(Request::Pause { patience }) => {
                    self.pause(client, Duration::from_millis(patience))
                }
                Ok(Request::Thaw {}) => self.thaw_for(client),
                Ok(Request::Restart { .. } | Request::Apply {}) if self.pause.is_some() => {
                    let text = "the node is paused, so that its data can be copied";
                    let help = "run the same command again in a few seconds";
                    Reply::Problem(Problem::failed("agent.paused", text).help(help))
                }
                Ok(Request::Restart { service }) => self.restart(&service),
                Ok(Request::Apply {}) => match self.take_config() {
                    Ok(()) => Reply::Done(true),
                    Err(problem) => Reply::Problem(problem),
                },
                Ok(Request::Stop {}) => Reply::Done(true),
                Err(problem) => Reply::Problem(problem),
            };
            let stays = matches!(reply, Reply::Paused(_));
            self.publisher.reply(client, &reply, stays, &self.poll);
            if stops {
                self.stop();
            }
        }
    }

    fn restart(&mut self, service: &str) -> Reply {
        let Some(unit) = self.machine.service(service) else {
            let text = format!("there is no service `{service}`");
            let help = format!("name one of: {}", self.machine.services().join(", "));
            return Reply::Problem(Problem::usage("agent.no_service", text).help(help));
        };
        self.logs.note(&format!("{service}: asked to start anew"));
        self.handle(Event::Restart(unit));
        Reply::Done(true)
    }
}
