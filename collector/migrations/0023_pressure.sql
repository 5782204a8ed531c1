-- Pressure and temperature, as the agent's heartbeat has them. Null for hosts whose agent or kernel tells none.

alter table heartbeats
    add column cpu_pressure_some_ratio    real,
    add column memory_pressure_some_ratio real,
    add column memory_pressure_full_ratio real,
    add column io_pressure_some_ratio     real,
    add column io_pressure_full_ratio     real,
    add column temperature_max_celsius    real;
