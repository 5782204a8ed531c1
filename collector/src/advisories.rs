//! Advisories: what distributions say of vulnerabilities in their packages, imported from documents that an operator
//! names, and kept beside what hosts have.

pub mod documents;
