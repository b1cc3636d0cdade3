use std::fs;
use std::net::IpAddr;

use proptest::prelude::*;

use super::*;

/// 53 tags of Azure's list of 2025-10-28, unchanged: those of the region eastasia,
/// with the neighbours of 168.63.129.16 among them, and a few of every kind.
/// From github.com/ryanborMSFT/AzureServiceTagsJson (MIT).
fn published() -> String {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../tests/corpus/service-tags-public.json"
    );
    fs::read_to_string(path).unwrap()
}

fn catalogue(json: &str) -> Catalogue {
    Catalogue::parse(json, "list.json").unwrap()
}

fn wrong(json: &str) -> String {
    Catalogue::parse(json, "list.json").unwrap_err().to_string()
}

fn prefixes(catalogue: &Catalogue, tag: &str) -> Vec<String> {
    let tag = catalogue.tag(tag).unwrap();
    tag.prefixes.iter().map(IpNet::to_string).collect()
}

fn tags_with(catalogue: &Catalogue, address: &str) -> Vec<String> {
    let address: IpAddr = address.parse().unwrap();
    let has = |tag: &&Tag| tag.prefixes.iter().any(|prefix| prefix.contains(&address));
    catalogue
        .tags()
        .filter(has)
        .map(|tag| tag.name.clone())
        .collect()
}

#[test]
fn every_prefix_is_kept_as_published() {
    let json = published();
    let untyped: serde_json::Value = serde_json::from_str(&json).unwrap();
    let catalogue = catalogue(&json);
    for value in untyped["values"].as_array().unwrap() {
        let published: Vec<&str> = value["properties"]["addressPrefixes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|prefix| prefix.as_str().unwrap())
            .collect();
        assert_eq!(
            prefixes(&catalogue, value["name"].as_str().unwrap()),
            published
        );
    }
}

/// Four fifths of Azure's IPv4 prefixes lie inside of another one, over all tags.
#[test]
fn nested_prefixes_are_not_swallowed() {
    let catalogue = catalogue(&published());
    let mut all: Vec<IpNet> = catalogue
        .tags()
        .flat_map(|tag| tag.prefixes.clone())
        .collect();
    all.retain(|prefix| prefix.addr().is_ipv4());
    all.sort();
    all.dedup();
    let nested = all.iter().filter(|inner| {
        all.iter()
            .any(|outer| outer != *inner && outer.contains(*inner))
    });
    assert_eq!((nested.count(), all.len()), (424, 981));
}

#[test]
fn the_platform_s_own_address_is_in_no_tag_although_its_neighbours_are() {
    let catalogue = catalogue(&published());
    assert_eq!(tags_with(&catalogue, "168.63.129.16"), Vec::<String>::new());
    assert_eq!(
        tags_with(&catalogue, "168.63.129.15"),
        ["AzureCloud.eastasia"]
    );
    assert_eq!(
        tags_with(&catalogue, "168.63.129.32"),
        ["AzureCloud.eastasia"]
    );
}

#[test]
fn a_tag_is_found_in_any_letter_case_and_keeps_the_published_one() {
    let catalogue = catalogue(&published());
    for asked in [
        "AzureCloud.EastAsia",
        "azurecloud.eastasia",
        "AZURECLOUD.EASTASIA",
    ] {
        assert_eq!(catalogue.tag(asked).unwrap().name, "AzureCloud.eastasia");
    }
    assert!(catalogue.tag("AzureCloud.EastAsi").is_none());
}

#[test]
fn a_dot_in_a_name_is_no_region() {
    let catalogue = catalogue(&published());
    assert!(catalogue.tag("AzureFrontDoor.FirstParty").is_some());
    assert!(catalogue.tag("AzureFrontDoor").is_none());
}

#[test]
fn both_families_of_a_tag_are_read_from_its_one_list() {
    let catalogue = catalogue(&published());
    let prefixes = &catalogue.tag("AzureActiveDirectory").unwrap().prefixes;
    assert_eq!(
        prefixes
            .iter()
            .filter(|prefix| prefix.addr().is_ipv4())
            .count(),
        200
    );
    assert_eq!(
        prefixes
            .iter()
            .filter(|prefix| prefix.addr().is_ipv6())
            .count(),
        16
    );
}

#[test]
fn a_misspelt_tag_is_answered_with_the_nearest_names() {
    let catalogue = catalogue(&published());
    assert_eq!(
        catalogue.nearest("AzureFrontDoor.FristParty")[0],
        "AzureFrontDoor.FirstParty"
    );
    assert_eq!(
        catalogue.nearest("azureactivedirectry"),
        ["AzureActiveDirectory"]
    );
    assert_eq!(catalogue.nearest("Internets"), ["Internet"]);
    assert!(catalogue.nearest("qqq").is_empty());
}

#[test]
fn the_built_in_catalogue_has_what_the_preset_and_the_documentation_need() {
    let catalogue = Catalogue::built_in().unwrap();
    for tag in [
        "AzureActiveDirectory",
        "AzureResourceManager",
        "AzureMachineLearning",
        "BatchNodeManagement",
        "AzureFrontDoor.FirstParty",
        "AzureFrontDoor.Frontend",
        "MicrosoftContainerRegistry",
        "Storage",
        "AzureMonitor",
        "AzureKeyVault",
        "AzureContainerRegistry",
    ] {
        assert!(
            catalogue
                .tag(tag)
                .is_some_and(|tag| !tag.prefixes.is_empty()),
            "{tag}"
        );
    }
    let edition = catalogue.edition();
    assert_eq!(
        (edition.source.as_str(), edition.cloud.as_str()),
        ("built-in", "Public")
    );
    assert!(edition.change_number >= 375, "{edition:?}");
    assert!(
        edition
            .date
            .as_deref()
            .is_some_and(|date| date >= "2025-10-28"),
        "{edition:?}"
    );
    assert_eq!(edition.tags, catalogue.tags().count());
}

#[test]
fn the_built_in_catalogue_is_small() {
    assert!(BUILT_IN.len() < 160_000, "{}", BUILT_IN.len());
    assert!(BUILT_IN.lines().count() >= Catalogue::built_in().unwrap().edition().tags);
}

const DOWNLOAD: &str = r#"{"changeNumber": 375, "cloud": "Public", "values": [
    {"name": "A", "id": "A", "properties": {"changeNumber": 1, "region": "", "regionId": 0, "platform": "Azure",
     "systemService": "", "addressPrefixes": ["192.0.2.0/24"], "networkFeatures": null}}]}"#;
const REST: &str = r#"{"changeNumber": "375", "cloud": "Public", "id": "/x", "name": "public", "nextLink": "",
    "type": "Microsoft.Network/serviceTags", "values": [{"id": "A", "name": "A", "serviceTagChangeNumber": "1",
     "properties": {"addressPrefixes": ["192.0.2.0/24"], "changeNumber": "1", "region": "", "systemService": ""}}]}"#;

#[test]
fn the_download_and_the_rest_form_say_the_same() {
    let (download, rest) = (catalogue(DOWNLOAD), catalogue(REST));
    assert_eq!(download.edition(), rest.edition());
    assert_eq!(download.edition().change_number, 375);
    assert_eq!(prefixes(&download, "A"), prefixes(&rest, "A"));
}

#[test]
fn a_change_number_that_is_none_is_refused() {
    assert!(wrong(&REST.replace("\"375\"", "\"new\"")).contains("a version number"));
    assert!(wrong(&DOWNLOAD.replace("375", "-1")).contains("a version number"));
}

#[test]
fn a_byte_order_mark_changes_nothing() {
    let with_mark = format!("\u{feff}{DOWNLOAD}");
    assert_eq!(
        catalogue(&with_mark).edition(),
        catalogue(DOWNLOAD).edition()
    );
    assert!(wrong(&format!("x{DOWNLOAD}")).contains("no list of service tags"));
}

#[test]
fn network_features_may_be_a_list_or_null_or_absent() {
    let list = DOWNLOAD.replace("null", r#"["API", "NSG"]"#);
    let absent = DOWNLOAD.replace(r#", "networkFeatures": null"#, "");
    assert!(!absent.contains("networkFeatures"));
    for json in [DOWNLOAD, &list, &absent] {
        assert_eq!(prefixes(&catalogue(json), "A"), ["192.0.2.0/24"]);
    }
}

#[test]
fn escaped_slashes_and_single_addresses_are_prefixes() {
    let json = DOWNLOAD.replace("192.0.2.0/24", r"192.0.2.0\/24");
    assert_eq!(prefixes(&catalogue(&json), "A"), ["192.0.2.0/24"]);
    let json = DOWNLOAD.replace("192.0.2.0/24", "2001:db8::1");
    assert_eq!(prefixes(&catalogue(&json), "A"), ["2001:db8::1/128"]);
}

#[test]
fn the_date_is_that_of_the_list_or_else_of_its_file_s_name() {
    let date = |json: &str, file| Catalogue::parse(json, file).unwrap().edition.date;
    let dated = DOWNLOAD.replace("\"cloud\"", "\"date\": \"2025-10-28\", \"cloud\"");
    assert_eq!(
        date(&dated, "a_20200101.json").as_deref(),
        Some("2025-10-28")
    );
    let file = "tags/ServiceTags_Public_20251027.json";
    assert_eq!(date(DOWNLOAD, file).as_deref(), Some("2025-10-27"));
    for undated in [
        "ServiceTags_Public.json",
        "x.json",
        "a_99999999.json",
        "é2345678.json",
    ] {
        assert_eq!(date(DOWNLOAD, undated), None, "{undated}");
    }
}

#[test]
fn two_lists_are_one_and_a_tag_of_both_stands_for_either() {
    let other = DOWNLOAD
        .replace("192.0.2.0/24", r#"192.0.2.0/24", "198.51.100.0/24"#)
        .replace("\"id\"", "\"ID\"");
    let more = REST.replace(r#""name": "A""#, r#""name": "B""#);
    let merged = catalogue(DOWNLOAD)
        .merge(catalogue(&other))
        .merge(catalogue(&more));
    assert_eq!(prefixes(&merged, "A"), ["192.0.2.0/24", "198.51.100.0/24"]);
    assert_eq!(prefixes(&merged, "B"), ["192.0.2.0/24"]);
    assert_eq!(merged.edition().tags, 2);
    assert_eq!(merged.edition().source, "list.json, list.json, list.json");
}

#[test]
fn amazon_s_list_has_tags_by_service_and_by_region() {
    let aws = catalogue(
        r#"{"syncToken": "1787411825", "createDate": "2026-08-22-15-17-05",
            "prefixes": [{"ip_prefix": "3.4.12.4/32", "region": "eu-west-1", "service": "AMAZON", "network_border_group": "eu-west-1"},
                         {"ip_prefix": "3.5.140.0/22", "region": "ap-northeast-2", "service": "S3", "network_border_group": "x"}],
            "ipv6_prefixes": [{"ipv6_prefix": "2406:daba:f000::/40", "region": "ap-northeast-2", "service": "S3", "network_border_group": "x"}]}"#,
    );
    assert_eq!(
        prefixes(&aws, "S3"),
        ["3.5.140.0/22", "2406:daba:f000::/40"]
    );
    assert_eq!(prefixes(&aws, "s3.ap-northeast-2"), prefixes(&aws, "S3"));
    assert_eq!(prefixes(&aws, "AMAZON.eu-west-1"), ["3.4.12.4/32"]);
    assert!(aws.tag("S3.eu-west-1").is_none());
    let edition = aws.edition();
    assert_eq!(
        (edition.change_number, edition.date.as_deref()),
        (1_787_411_825, Some("2026-08-22"))
    );
}

#[test]
fn google_s_lists_have_tags_by_service_and_by_scope() {
    let cloud = catalogue(
        r#"{"syncToken": "1753409788780", "creationTime": "2025-07-24T19:16:28.780563", "prefixes": [
            {"ipv4Prefix": "34.1.208.0/20", "service": "Google Cloud", "scope": "africa-south1"},
            {"ipv6Prefix": "2600:1900:8000::/44", "service": "Google Cloud", "scope": "us-east1"}]}"#,
    );
    assert_eq!(
        prefixes(&cloud, "GoogleCloud"),
        ["34.1.208.0/20", "2600:1900:8000::/44"]
    );
    assert_eq!(
        prefixes(&cloud, "GoogleCloud.us-east1"),
        ["2600:1900:8000::/44"]
    );
    assert_eq!(cloud.edition().date.as_deref(), Some("2025-07-24"));
    let all = catalogue(
        r#"{"syncToken": "1", "creationTime": "2025-07-24T19:16:28", "prefixes": [{"ipv4Prefix": "8.8.8.0/24"}]}"#,
    );
    assert_eq!(prefixes(&all, "Google"), ["8.8.8.0/24"]);
}

#[test]
fn github_s_list_has_a_tag_for_each_key_that_holds_prefixes() {
    let github = catalogue(
        r#"{"verifiable_password_authentication": false, "ssh_key_fingerprints": {"SHA256_RSA": "u"},
            "ssh_keys": ["ssh-ed25519 AAAA"], "hooks": ["192.30.252.0/22", "2a0a:a440::/29"],
            "git": ["140.82.112.0/20"], "domains": {"website": ["*.github.com"]}, "none": []}"#,
    );
    assert_eq!(
        prefixes(&github, "GitHub.hooks"),
        ["192.30.252.0/22", "2a0a:a440::/29"]
    );
    let names: Vec<&str> = github.tags().map(|tag| tag.name.as_str()).collect();
    assert_eq!(names, ["GitHub.git", "GitHub.hooks"]);
}

#[test]
fn what_is_no_list_is_told_apart() {
    assert!(wrong("<html>").contains("web page"));
    assert!(wrong("").contains("is cut off"));
    assert!(wrong("{\"values\": [").contains("is cut off"));
    assert!(wrong("{}").contains("none of the known lists"));
    assert!(wrong("[]").contains("no list of service tags"));
    assert!(wrong("{\"values\": []}").contains("has no tags"));
    assert!(wrong(&DOWNLOAD.replace("/24", "/33")).contains("192.0.2.0/33"));
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(cut in 0usize..400, insert in "\\PC{0,4}") {
        let json = published();
        let cut = json.floor_char_boundary(cut);
        let torn = format!("{}{insert}{}", &json[..cut], &DOWNLOAD[cut % DOWNLOAD.len()..]);
        prop_assert!(Catalogue::parse(&torn, "torn.json").is_err() || !torn.is_empty());
    }
}
