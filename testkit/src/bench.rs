//! What measurements have in common: the median of interleaved rounds, rounds spoiled by a busy machine, and
//! the section of `docs/benchmarks.md` where a result is kept. Called by the benchmarks behind `make bench`.

pub mod document;
pub mod rounds;
