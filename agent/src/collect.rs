//! What the agent knows of its host: the heartbeat every 30 seconds and the facts that change rarely.
//!
//! One file a source. A source answers a value or the reason why it has none; it never panics on
//! what a file holds, never waits without a limit, and never stops another. What is not known is
//! said so and why, never guessed and never 0. Called by the agent's run loop and `facts`.

mod accounts;
mod answers;
mod apps;
mod block_devices;
mod boot;
mod bounded;
mod cgroup;
mod cloud;
mod cpu;
mod dmi;
mod dns;
mod fact;
mod facts;
mod filesystems;
#[cfg(test)]
mod fixture;
mod heartbeat;
mod identity;
mod inventory;
mod kernel;
mod listening;
#[cfg(test)]
mod live_tests;
mod local;
mod memory;
mod mounts;
mod network;
mod os;
mod package_logs;
mod packages;
mod pressure;
mod process;
mod rates;
mod reboot;
mod root;
mod sensors;
mod swap;
mod systemd;
mod time;
mod updates;
mod users;
mod virtualization;

pub use boot::{BootRecords, Ended};
pub(crate) use cloud::address as instance_metadata_address;
pub use fact::Fact;
pub use facts::FactSources;
pub use heartbeat::HeartbeatSource;
pub use identity::{boot_id, hostname, machine_id, mono_ms};
pub use inventory::InventorySource;
pub use package_logs::{LogReader, PackageLogs, Reading};
pub use packages::{Found, installed_packages};
pub(crate) use packages::{of_apk as installed_apk, of_dpkg as installed_dpkg};
pub use root::Root;
pub use updates::pending_updates;

/// Why a value is not known, in words for whoever looks at the host.
type Reason = String;
