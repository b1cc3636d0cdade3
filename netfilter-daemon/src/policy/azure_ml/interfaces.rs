//! `interfaces:`, by name, or with the side to which each leads.

use crate::policy::error::Problems;
use crate::policy::fields::{Fields, Shape, choice, list, text};
use crate::policy::yaml::{Node, Value};

/// `IFNAMSIZ` less its final zero byte.
const NAME_MAX: usize = 15;
const AUTO: &str = "auto";

const INTERFACE: Shape = Shape {
    what: "an entry of `interfaces`",
    example: "{ name: \"tap*\", side: workload }",
    known: &["name", "side"],
    ignored: &[],
};

/// Names and patterns: a `*` stands for any letters.
#[derive(Default)]
pub(super) struct Interfaces {
    /// `None`: auto.
    pub(super) uplinks: Option<Vec<String>>,
    pub(super) workloads: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Uplink,
    Workload,
}

pub(super) fn read(settings: &Fields<'_, '_>, problems: &mut Problems) -> Interfaces {
    let Some(node) = settings.get("interfaces") else {
        return Interfaces::default();
    };
    if let Value::Scalar { text, .. } = &node.value
        && text == AUTO
    {
        return Interfaces::default();
    }
    let items = list("interfaces", node, problems);
    if items.is_empty() && matches!(node.value, Value::List(_)) {
        problems.add(
            node.at,
            "`interfaces` names none; name one, or write `auto` for those with a default route",
        );
    }
    let (mut uplinks, mut workloads, mut auto) = (Vec::new(), Vec::new(), false);
    for item in items {
        let Some((name, side)) = entry(item, problems) else {
            continue;
        };
        if side == Side::Uplink && name == AUTO {
            auto = true;
            continue;
        }
        let (here, there) = match side {
            Side::Uplink => (&mut uplinks, &workloads),
            Side::Workload => (&mut workloads, &uplinks),
        };
        if there.contains(&name) {
            problems.add(
                item.at,
                format!("`{name}` leads to one side only, and was named for the other before"),
            );
        }
        here.push(name);
    }
    if auto && !uplinks.is_empty() {
        problems.add(
            node.at,
            "`auto` chooses the uplinks itself; remove it, or those that are named",
        );
    }
    Interfaces {
        uplinks: (!auto).then_some(uplinks),
        workloads,
    }
}

fn entry(item: &Node<'_>, problems: &mut Problems) -> Option<(String, Side)> {
    const SIDES: [(&str, Side); 2] = [("workload", Side::Workload), ("uplink", Side::Uplink)];
    if !matches!(item.value, Value::Mapping(_)) {
        return Some((name(item, problems)?, Side::Uplink));
    }
    let fields = Fields::of(&INTERFACE, item, problems)?;
    let side = match fields.get("side") {
        Some(side) => choice("side", side, &SIDES, problems),
        None => Some(Side::Uplink),
    };
    let named = fields.required("name", "eth0", problems)?;
    Some((name(named, problems)?, side?))
}

fn name(node: &Node<'_>, problems: &mut Problems) -> Option<String> {
    let name = text("interfaces", node, problems)?;
    let legal = !name.is_empty()
        && name.len() <= NAME_MAX
        && !name.contains(|c: char| c == '/' || c.is_whitespace() || c.is_control());
    if !legal {
        problems.add(
            node.at,
            format!(
                "`{name}` is no name of an interface; these have 1 to {NAME_MAX} \
                 characters, such as eth0"
            ),
        );
    }
    legal.then(|| name.to_owned())
}
