//! (device side)
