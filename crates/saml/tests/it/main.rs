//! Tests of the crate from outside: attacks, what is asked of a message, and programs that are not ours as judges.

mod attacks;
mod encrypted;
mod logout;
mod metadata;
mod peers;
mod profile;
mod random;
mod simplesaml;
mod strict;
mod xmlsec;
