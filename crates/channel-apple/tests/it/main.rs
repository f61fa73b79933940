//! What the compiler writes, read back and held against Apple's schema.

mod compile;
mod schema;
mod settings;
