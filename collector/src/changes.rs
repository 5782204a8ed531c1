//! What changed a fleet and who did it: documents of Terraform and Ansible in, changes out. Everything here is a function
//! of its arguments: no database, no clock.

pub mod applied;
pub mod claims;
pub mod correlate;
pub mod json;
pub mod linking;
pub mod play;
pub mod terraform;
