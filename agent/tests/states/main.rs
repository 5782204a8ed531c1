//! What the check for updates answers of hosts in many states: of real roots, which the package managers of this machine make
//! and answer for (`apt/`, `dnf/`, `zypper/`), and of outputs written by their tools' documentation (`written/`).
//!
//! A state is a text file: a sentence, what there is, and `--- expected`, the answer. `INFRATRACK_RECORD=1` writes that section
//! anew; whoever does so reads what changed.

#[cfg(test)]
mod apt;
#[cfg(test)]
mod chance;
#[cfg(test)]
mod dnf;
#[cfg(test)]
mod languages;
#[cfg(test)]
mod obstacles;
#[cfg(test)]
mod releases;
#[cfg(test)]
mod rpms;
#[cfg(test)]
mod state;
#[cfg(test)]
mod written;
#[cfg(test)]
mod zypper;
