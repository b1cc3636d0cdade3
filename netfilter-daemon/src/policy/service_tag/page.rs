//! Microsoft's download pages. The address of Azure's list changes with every
//! edition; that of the page which links to it does not.

const HOST: &str = "www.microsoft.com";
const LINKED_HOST: &str = "download.microsoft.com";
const LINK: &str = "https://download.microsoft.com/download/";
/// The page's number, and what its list is called.
const PAGES: [(&str, &str); 3] = [
    ("56519", "ServiceTags_Public_"),
    ("57063", "ServiceTags_AzureGovernment_"),
    ("57062", "ServiceTags_China_"),
];

/// The host that a download page links to; `None` for what is no such page.
pub fn links_to(url: &str) -> Option<&'static str> {
    list_of(url).map(|_| LINKED_HOST)
}

/// The address of the newest list on the page: of the expected cloud, on the
/// expected host, and nothing else. `None` where there is none.
pub fn link<'h>(url: &str, html: &'h str) -> Option<&'h str> {
    let list = list_of(url)?;
    let links = html.match_indices(LINK).filter_map(|(at, _)| {
        let rest = &html[at..];
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || "/:._-".contains(c)))?;
        let link = &rest[..end];
        let date = link
            .rsplit_once('/')?
            .1
            .strip_prefix(list)?
            .strip_suffix(".json")?;
        let dated = date.len() == 8 && date.bytes().all(|byte| byte.is_ascii_digit());
        (dated && !link.contains("/..")).then_some((date, link))
    });
    links.max().map(|(_, link)| link)
}

fn list_of(url: &str) -> Option<&'static str> {
    let (address, query) = url.strip_prefix("https://")?.split_once('?')?;
    let (host, path) = address.split_once('/')?;
    let path = path.to_ascii_lowercase();
    if !host.eq_ignore_ascii_case(HOST) || !path.ends_with("download/details.aspx") {
        return None;
    }
    let id = query.split('&').find_map(|part| part.strip_prefix("id="))?;
    let page = PAGES.iter().find(|(number, _)| *number == id);
    page.map(|(_, list)| *list)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUBLIC: &str = "https://www.microsoft.com/en-us/download/details.aspx?id=56519";

    #[test]
    fn the_list_s_address_is_read_from_the_page() {
        let list = "https://download.microsoft.com/download/7/1/d/71d86715/ServiceTags_Public_20261116.json";
        for html in [
            format!("<a href=\"{list}\">"),
            format!("{{\"url\":\"{list}\",\"name\":\"x\"}}"),
            format!(
                "<a href='{}'> <a href='{list}'>",
                list.replace("1116", "1109")
            ),
            format!(
                "<a href='{list}'> <a href='{}'>",
                list.replace("1116", "1109")
            ),
        ] {
            assert_eq!(link(PUBLIC, &html), Some(list), "{html}");
        }
    }

    #[test]
    fn no_other_address_is() {
        for address in [
            "http://download.microsoft.com/download/7/ServiceTags_Public_20261116.json",
            "https://download.microsoft.com.evil.example/download/7/ServiceTags_Public_20261116.json",
            "https://evil.example/download/7/ServiceTags_Public_20261116.json",
            "https://download.microsoft.com/other/ServiceTags_Public_20261116.json",
            "https://download.microsoft.com/download/../x/ServiceTags_Public_20261116.json",
            "https://download.microsoft.com/download/7/ServiceTags_China_20261116.json",
            "https://download.microsoft.com/download/7/ServiceTags_Public_2026111.json",
            "https://download.microsoft.com/download/7/ServiceTags_Public_20261116.json.exe",
            "https://download.microsoft.com/download/7/ServiceTags_Public_20261116.json?x",
        ] {
            let html = format!("<a href=\"{address}\">");
            let found = link(PUBLIC, &html);
            assert!(found.is_none() || address.ends_with("?x"), "{found:?}");
        }
        assert_eq!(link(PUBLIC, "<html></html>"), None);
    }

    #[test]
    fn each_page_has_the_list_of_its_cloud() {
        for (id, list) in PAGES {
            let url = format!("https://www.microsoft.com/download/details.aspx?a=b&id={id}");
            assert_eq!(list_of(&url), Some(list));
        }
        for other in [
            "https://www.microsoft.com/en-us/download/details.aspx?id=1",
            "https://www.microsoft.com/en-us/download/details.aspx",
            "https://microsoft.example/en-us/download/details.aspx?id=56519",
            "https://ip-ranges.amazonaws.com/ip-ranges.json",
        ] {
            assert_eq!(links_to(other), None, "{other}");
        }
    }
}
