//! The promises of the product, each with a test that fails when it is broken.
//!
//! Needs root: BPF programs are loaded, and network namespaces made. Nothing is
//! attached outside of those.

mod agreement;
mod bpffs;
mod cli;
mod enforcement;
mod flows;
mod frame;
mod names;
mod reload;
mod resolvers;
mod world;
