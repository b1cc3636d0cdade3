//! Packets on the loopback interface, read for the answers of a local resolver.
//! Nothing here leaves the machine, so nothing is judged or counted.

use netfilter_ebpf::{egress, packet::TCP, verdict::Answer};

use crate::{
    answer, conclude,
    frame::{Frame, read},
    maps::{ANSWER_COUNTS, count},
    message, question,
    skb::Skb,
    stream,
    tables::Generation,
};

#[inline(always)]
pub(crate) fn run(skb: &Skb) -> i32 {
    let (Some((generation, _)), Ok(Frame::Ip(packet))) = (Generation::active(), read(skb)) else {
        return conclude::PASS;
    };
    if egress::is_dns(packet.protocol, packet.source_port) && generation.is_resolver(packet.source)
    {
        if packet.protocol == TCP {
            _ = stream::inbound(skb, &generation, true);
        } else if answer::datagram(skb, packet, &generation) == Answer::Learned {
            count(&ANSWER_COUNTS, Answer::Learned as u8);
        }
    } else if egress::is_dns(packet.protocol, packet.destination_port)
        && generation.is_resolver(packet.destination)
    {
        if packet.protocol == TCP {
            _ = stream::outbound(skb, &generation, true);
        } else if let Some(length) = message::load_datagram(skb, packet) {
            _ = question::ask(length, &generation, true);
        }
    }
    conclude::PASS
}
