//! The agent on its host, beside what others run there: `node_exporter` and `zabbix_agentd` for memory, threads and
//! CPU, facter and ansible for facts. Called by `infratrack-bench-agent`.

pub mod facts;
pub mod peers;
pub mod report;
pub mod usage;
