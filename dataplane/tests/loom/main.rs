//! Models of the memory that lcores share: loom runs each program below in every interleaving of
//! its threads and with every value that a load may return by the rules of the memory model.
//!
//! Compiled with `--cfg loom` alone (`make loom`). A model bounds the preemptions where trying all
//! of them would take long; `LOOM_MAX_PREEMPTIONS` lowers every bound. The tables are as small as
//! they can be, and hashes are made so that homes and tags collide.
//!
//! Loom begins with the first thread and sets another before the last access to a word alone. So
//! who only looks is the second thread, or it is never tried in the middle of what it looks at; and
//! of a model it is known only that it tries what it is about when it fails without the protection.
#![cfg(loom)]

mod capacity;
mod chunks;
mod expect;
mod index;
mod neighbours;
mod records;
mod resize;
mod sets;

/// Tries `program` in all interleavings with at most `preemptions` preemptions.
fn model(preemptions: usize, program: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    let bound = builder.preemption_bound.map_or(preemptions, |most| most.min(preemptions));
    builder.preemption_bound = Some(bound);
    builder.max_branches = 100_000;
    builder.check(program);
}
