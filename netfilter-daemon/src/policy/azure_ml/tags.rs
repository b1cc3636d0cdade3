//! Service tags as a rule's destination.

use ipnet::IpNet;

use crate::policy::Destination;
use crate::policy::error::{At, Problems};
use crate::policy::nearest::did_you_mean;
use crate::policy::service_tag::{BUILT_IN_NAME, Catalogue, Edition};

/// Where tags are looked up.
#[derive(Clone, Copy)]
pub(super) struct Tags<'c> {
    /// `None` where it cannot be read, which is reported already; then no tag is missed.
    pub(super) catalogue: Option<&'c Catalogue>,
    pub(super) virtual_network: &'c [IpNet],
    /// Whose rule it is, if not the policy's own.
    pub(super) preset: Option<&'c str>,
}

impl Tags<'_> {
    pub(super) fn destination(
        &self,
        name: &str,
        at: At,
        problems: &mut Problems,
    ) -> Option<Destination> {
        let catalogue = self.catalogue?;
        let Some(tag) = catalogue.resolve(name, self.virtual_network) else {
            problems.add(at, self.unknown(name, catalogue));
            return None;
        };
        if tag.prefixes.is_empty() {
            problems.note(
                at,
                format!(
                    "the service tag {} stands for no address here, so the rule does nothing",
                    tag.name
                ),
            );
        }
        Some(Destination::Tag {
            tag: tag.name,
            prefixes: tag.prefixes,
        })
    }

    fn unknown(&self, name: &str, catalogue: &Catalogue) -> String {
        let Edition { source, tags, .. } = catalogue.edition();
        if let Some(preset) = self.preset {
            return format!(
                "the preset `{preset}` needs the service tag {name}, which is not among the \
                 {tags} of {source}; write `service_tags: [{BUILT_IN_NAME}, {source}]`"
            );
        }
        let near = did_you_mean(&catalogue.nearest(name));
        if source == BUILT_IN_NAME {
            let near = near.trim_end_matches('?');
            return format!(
                "no service tag is named `{name}` among the {tags} of the built-in \
                 catalogue{near}; for all tags, download Azure's list and write \
                 `service_tags: ServiceTags_Public.json`"
            );
        }
        format!("no service tag is named `{name}` among the {tags} of {source}{near}")
    }
}
