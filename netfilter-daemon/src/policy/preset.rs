//! Sets of rules that ship with the program.

use ipnet::IpNet;

use super::{ports::Traffic, service_tag::WIRE_SERVER};

/// One row of a preset's table.
pub(super) struct Row {
    pub(super) destination: &'static str,
    pub(super) kind: Kind,
    pub(super) traffic: Traffic,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Tag,
    Name,
}

pub(super) const NAMES: [&str; 1] = ["azure-ml"];

/// The rows of the preset; `None` where none has the name.
pub(super) fn rows(preset: &str) -> Option<Vec<Row>> {
    match preset {
        "azure-ml" => Some(azure_ml()),
        _ => None,
    }
}

/// What answers on the link of every machine that the preset is for: on Azure the address of
/// its DHCP servers, which the host itself answers.
pub(super) fn near(preset: &str) -> Option<IpNet> {
    (preset == "azure-ml").then_some(WIRE_SERVER.into())
}

/// What Azure ML's documentation requires of a network that lets out only what is approved.
/// <https://learn.microsoft.com/azure/machine-learning/how-to-access-azureml-behind-firewall>
fn azure_ml() -> Vec<Row> {
    let tag = |destination, traffic| Row {
        destination,
        kind: Kind::Tag,
        traffic,
    };
    let name = |destination| Row {
        destination,
        kind: Kind::Name,
        traffic: Traffic::tcp([443]),
    };
    vec![
        tag("AzureActiveDirectory", Traffic::tcp([80, 443])),
        tag("AzureResourceManager", Traffic::tcp([443])),
        tag("AzureMachineLearning", Traffic::udp([5831])),
        tag("BatchNodeManagement", Traffic::tcp([443])),
        name("mcr.microsoft.com"),
        name("*.data.mcr.microsoft.com"),
        name("ml.azure.com"),
        name("automlresources-prod.azureedge.net"),
    ]
}
