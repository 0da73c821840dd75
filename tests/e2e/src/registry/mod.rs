//! Registries of container images that the tests run themselves, as small as what containerd asks of one, and a proxy that counts.

mod authority;
mod http;
mod proxy;
mod server;

pub use authority::TestAuthority;
pub use proxy::TestProxy;
pub use server::{Login, TestRegistry};
