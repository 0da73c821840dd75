//! Image names, completed as Docker completes them.

use oci_spec::distribution::Reference;

use crate::error::Error;

/// The full name: `nginx` is `docker.io/library/nginx:latest`.
///
/// # Errors
/// [`Error::Reference`] for what cannot be a name.
pub fn normalize(name: &str) -> Result<String, Error> {
    let reference: Reference =
        name.parse().map_err(|error: oci_spec::distribution::ParseError| Error::Reference {
            name: name.to_owned(),
            why: error.to_string(),
        })?;
    Ok(reference.whole())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_completed() {
        let cases = [
            ("nginx", "docker.io/library/nginx:latest"),
            ("nginx:1", "docker.io/library/nginx:1"),
            ("me/app", "docker.io/me/app:latest"),
            ("docker.io/nginx", "docker.io/library/nginx:latest"),
            ("localhost:5000/app:x", "localhost:5000/app:x"),
            ("localhost/app", "localhost/app:latest"),
            ("registry.k8s.io/pause:3.10", "registry.k8s.io/pause:3.10"),
        ];
        for (name, full) in cases {
            assert_eq!(normalize(name).unwrap(), full);
        }
        assert_eq!(normalize("Not A Name").unwrap_err().code(), "image.bad_name");
    }
}
