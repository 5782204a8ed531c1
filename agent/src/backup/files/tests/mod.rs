//! Real trees are backed up into a real bucket and restored from it; what comes out is compared with what was there.

mod rules;
pub(crate) mod store;
mod unchanged;
mod whole;
