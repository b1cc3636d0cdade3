//! Ordinary work does not notice the filter, beyond what the policy says. Each test ends with
//! what the kernel has dropped.

mod dhcp;
