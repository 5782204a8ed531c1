//! What Terraform and Ansible did, from what they write to what operators see; and what people write down themselves.

mod bound;
pub(crate) mod documents;
mod ingest;
mod keeping;
mod links;
mod manual;
mod nowhere;
mod pages;
mod plays;
mod real;
