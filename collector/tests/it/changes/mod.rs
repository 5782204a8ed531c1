//! What Terraform and Ansible did, from what they write to what operators see.

mod ingest;
mod plays;
mod real;
