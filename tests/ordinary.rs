//! Ordinary work does not notice the filter, beyond what the policy says. Each test ends with
//! what the kernel has dropped.

mod containers;
mod dhcp;
mod packages;
mod paths;
mod ssh;
