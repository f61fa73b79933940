//! The services of others that Muster works with: each implements a port of `control`, and nothing else of it is called.

mod artifacts;

pub use artifacts::{ObjectArtifacts, OpenError};
