//! Tests of the verifiers against made evidence, against bent evidence, and against swtpm with tpm2-tools.

mod android;
mod apple;
mod chain;
mod event_log;

mod fuzz;
mod object;
mod openssl;
mod support;
mod swtpm;
mod tpm;
mod vectors;
