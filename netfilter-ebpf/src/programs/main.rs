//! The BPF programs: entry points only.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch, stmt_expr_attributes)]
#![allow(
    clippy::cast_possible_truncation,
    reason = "arguments of global functions are words"
)]
#![allow(
    clippy::needless_borrows_for_generic_args,
    reason = "by value they would be copied on a stack of 512 bytes"
)]

mod answer;
mod atomic;
#[cfg(feature = "bench")]
mod bench;
mod buffer;
mod climb;
mod clock;
mod conclude;
mod deciders;
mod egress;
mod event;
mod flow;
mod forgetful;
mod frame;
mod guard;
mod hits;
mod ingress;
mod interface;
mod lease;
mod loopback;
mod maps;
mod memo;
mod message;
mod options;
mod passage;
mod paths;
mod plumbing;
mod question;
mod refuse;
mod remotes;
mod skb;
mod stream;
mod tables;
mod wanted;
mod who;
mod widen;
mod workload;
mod xdp;

use aya_ebpf::{
    macros::{cgroup_sock, cgroup_sock_addr, cgroup_sockopt, classifier, xdp},
    programs::{SockAddrContext, SockContext, SockoptContext, TcContext, XdpContext},
};
use netfilter_ebpf::verdict::Moment;

#[classifier]
fn netfilter_egress(ctx: TcContext) -> i32 {
    egress::run(&skb::Skb { ctx })
}

#[classifier]
fn netfilter_ingress(ctx: TcContext) -> i32 {
    ingress::run(&skb::Skb { ctx })
}

/// What a workload sends, at the interface by which it comes to this host.
#[xdp]
fn netfilter_workload(ctx: XdpContext) -> u32 {
    workload::run(&xdp::Xdp::at(ctx.ctx)) as u32
}

#[classifier]
fn netfilter_judged(ctx: TcContext) -> i32 {
    workload::let_in(&skb::Skb { ctx })
}

#[classifier]
fn netfilter_loopback(ctx: TcContext) -> i32 {
    loopback::run(&skb::Skb { ctx })
}

#[cgroup_sockopt(setsockopt)]
fn netfilter_setsockopt(ctx: SockoptContext) -> i32 {
    guard::run::<true>(ctx.sockopt)
}

/// For kernels that do not tell such a program which process it serves.
#[cgroup_sockopt(setsockopt)]
fn netfilter_setsockopt_unnamed(ctx: SockoptContext) -> i32 {
    guard::run::<false>(ctx.sockopt)
}

#[cgroup_sock_addr(connect4)]
fn netfilter_connect4(ctx: SockAddrContext) -> i32 {
    who::uses(ctx.sock_addr, Moment::Connect)
}

#[cgroup_sock_addr(connect6)]
fn netfilter_connect6(ctx: SockAddrContext) -> i32 {
    who::uses(ctx.sock_addr, Moment::Connect)
}

#[cgroup_sock_addr(sendmsg4)]
fn netfilter_sendmsg4(ctx: SockAddrContext) -> i32 {
    who::uses(ctx.sock_addr, Moment::Send)
}

#[cgroup_sock_addr(sendmsg6)]
fn netfilter_sendmsg6(ctx: SockAddrContext) -> i32 {
    who::uses(ctx.sock_addr, Moment::Send)
}

#[cgroup_sock(sock_create)]
fn netfilter_socket(ctx: SockContext) -> i32 {
    who::makes(ctx.sock)
}

// Stand in for the two while these change their places: the kernel attaches no program
// twice. Without a target they let nothing pass.

#[classifier]
fn netfilter_relay_egress(ctx: TcContext) -> i32 {
    conclude::relay(&ctx, 0)
}

#[classifier]
fn netfilter_relay_ingress(ctx: TcContext) -> i32 {
    conclude::relay(&ctx, 1)
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Never reached: the verifier refuses a program that could loop here.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
