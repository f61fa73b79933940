//! Tests of the trust crate against its public face, one file per module.

mod approval;
mod archive;
mod bundle;
mod checkpoint;
mod dsse;
mod encoding;
mod entry;
mod key;
mod log;
mod merkle;
mod note;
mod obey;
mod passkey;
mod root;
mod root_change;
mod statement;
mod support;
mod tile;
mod witness;
