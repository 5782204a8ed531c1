//! The agent on its host, beside what others run there: `node_exporter` and `zabbix_agentd` for memory, threads and
//! CPU, facter and ansible for facts, apt for the check for updates, restic for
//! backups. Called by `infratrack-bench-agent`.

pub mod alone;
pub mod backups;
pub mod checks;
pub mod facts;
pub mod inventory;
pub mod peers;
pub mod report;
pub mod taking;
pub mod usage;
