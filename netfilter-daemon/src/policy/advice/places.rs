//! Places that many share, and places that lead to others.

/// Service tags behind which anybody can have a place, and what to do instead. Each stands
/// for its regions, too.
pub(super) const TAGS: [(&str, &str); 35] = [
    ("Storage", STORAGE),
    ("AzureDataLake", STORAGE),
    ("AzureFrontDoor.Frontend", FRONT_DOOR),
    ("AzureCloud", MACHINES),
    (
        "Internet",
        "every address there is, and some of them are an attacker's; name what is needed, as `run --audit` and `events` show it",
    ),
    ("AppService", SITES),
    (
        "AzureContainerRegistry",
        "every registry of Azure, whoever's; write your registry's own names, such as mine.azurecr.io, or a private endpoint",
    ),
    ("AzureCosmosDB", DATABASES),
    ("Sql", DATABASES),
    (
        "AzureKeyVault",
        "every key vault, whoever's; write your vault's own name, such as mine.vault.azure.net",
    ),
    ("EventHub", QUEUES),
    ("ServiceBus", QUEUES),
    ("AzureEventGrid", QUEUES),
    ("AzureSignalR", QUEUES),
    ("AzureWebPubSub", QUEUES),
    ("AzureIoTHub", QUEUES),
    ("LogicApps", SITES),
    (
        "AzureDevOps",
        "every organisation there, whoever's, and the names do not tell them apart; a proxy that reads paths can",
    ),
    ("CognitiveServicesFrontend", SITES),
    ("AzureCognitiveSearch", DATABASES),
    ("AMAZON", CLOUD_MACHINES),
    ("EC2", CLOUD_MACHINES),
    ("S3", BUCKETS),
    ("CLOUDFRONT", CDN),
    ("CLOUDFRONT_ORIGIN_FACING", CDN),
    ("API_GATEWAY", SITES),
    ("GLOBALACCELERATOR", CDN),
    ("DYNAMODB", DATABASES),
    ("GoogleCloud", CLOUD_MACHINES),
    ("Google", BUCKETS),
    ("GitHub.git", REPOSITORIES),
    ("GitHub.web", REPOSITORIES),
    ("GitHub.api", REPOSITORIES),
    ("GitHub.packages", REPOSITORIES),
    ("GitHub.actions", CLOUD_MACHINES),
];

const STORAGE: &str = "every storage account of Azure, whoever's: an attacker needs no more than \
     one of his own; write your accounts' own names, such as mine.blob.core.windows.net, or a \
     private endpoint, or add a service endpoint policy to the subnet";
const FRONT_DOOR: &str = "every customer's Front Door, behind which can be anything; for \
     Microsoft's own services write AzureFrontDoor.FirstParty, for others their names";
const MACHINES: &str = "every machine that anybody rents in Azure; write the tags of the services \
     that are needed";
const CLOUD_MACHINES: &str = "every machine that anybody rents there; write the names of the \
     services that are needed";
const SITES: &str = "every customer's sites, behind which can be anything; write the names of those \
     that are needed";
const DATABASES: &str =
    "every customer's databases; write the names of yours, or a private endpoint";
const QUEUES: &str = "every customer's queues; write the names of your namespaces, or a private \
     endpoint";
const BUCKETS: &str = "every bucket, whoever's; write your buckets' own names, such as \
     mine.s3.eu-west-1.amazonaws.com, or use the cloud's private endpoints with a policy";
const CDN: &str = "every customer's site of that network, behind which can be anything; write the \
     names of those that are needed";
const REPOSITORIES: &str = "every repository, whoever's, and a token is all that a push takes; a \
     mirror of your own, or a proxy that reads paths, can tell them apart";

const ACCOUNTS: &str = "write the names of your own accounts, or a private endpoint";
const OWN_SITES: &str = "write the names of the sites that are needed";

/// Below each of these anybody can have a name, for the price of an account. What the
/// list of publicsuffix.org holds is asked there; these are the ones with a remedy of
/// their own, or missing there.
pub(super) const SUFFIXES: [(&str, &str); 58] = [
    ("blob.core.windows.net", ACCOUNTS),
    ("dfs.core.windows.net", ACCOUNTS),
    ("file.core.windows.net", ACCOUNTS),
    ("queue.core.windows.net", ACCOUNTS),
    ("table.core.windows.net", ACCOUNTS),
    ("web.core.windows.net", ACCOUNTS),
    ("blob.storage.azure.net", ACCOUNTS),
    ("servicebus.windows.net", ACCOUNTS),
    ("database.windows.net", ACCOUNTS),
    ("documents.azure.com", ACCOUNTS),
    ("vault.azure.net", ACCOUNTS),
    (
        "azurecr.io",
        "write the name of your own registry, such as mine.azurecr.io",
    ),
    ("azureedge.net", OWN_SITES),
    ("azurefd.net", OWN_SITES),
    ("trafficmanager.net", OWN_SITES),
    ("azurewebsites.net", OWN_SITES),
    ("azurestaticapps.net", OWN_SITES),
    ("azurecontainerapps.io", OWN_SITES),
    ("azurecontainer.io", OWN_SITES),
    ("azure-api.net", OWN_SITES),
    ("azure-devices.net", ACCOUNTS),
    ("azuredatabricks.net", ACCOUNTS),
    ("cloudapp.azure.com", OWN_SITES),
    ("cloudapp.net", OWN_SITES),
    ("logic.azure.com", OWN_SITES),
    ("cognitiveservices.azure.com", ACCOUNTS),
    ("openai.azure.com", ACCOUNTS),
    ("search.windows.net", ACCOUNTS),
    ("service.signalr.net", ACCOUNTS),
    ("visualstudio.com", ACCOUNTS),
    (
        "sharepoint.com",
        "write the name of your own tenant, such as mine.sharepoint.com",
    ),
    ("s3.amazonaws.com", "write the names of your own buckets"),
    ("execute-api.amazonaws.com", OWN_SITES),
    ("elb.amazonaws.com", OWN_SITES),
    ("cloudfront.net", OWN_SITES),
    ("awsglobalaccelerator.com", OWN_SITES),
    (
        "storage.googleapis.com",
        "write the names of your own buckets",
    ),
    ("appspot.com", OWN_SITES),
    ("run.app", OWN_SITES),
    ("cloudfunctions.net", OWN_SITES),
    ("web.app", OWN_SITES),
    ("firebaseio.com", ACCOUNTS),
    ("github.io", OWN_SITES),
    ("akamaized.net", OWN_SITES),
    ("akamaihd.net", OWN_SITES),
    ("edgekey.net", OWN_SITES),
    ("edgesuite.net", OWN_SITES),
    ("fastly.net", OWN_SITES),
    ("fastlylb.net", OWN_SITES),
    ("b-cdn.net", OWN_SITES),
    ("workers.dev", OWN_SITES),
    ("pages.dev", OWN_SITES),
    ("r2.dev", "write the names of your own buckets"),
    ("r2.cloudflarestorage.com", ACCOUNTS),
    (
        "digitaloceanspaces.com",
        "write the names of your own buckets",
    ),
    ("backblazeb2.com", "write the names of your own buckets"),
    ("wasabisys.com", "write the names of your own buckets"),
    ("trycloudflare.com", "no work needs it"),
];

/// Hosts that take data from anybody, and do not tell whose in their name.
pub(super) const HOSTS: [(&str, &str); 20] = [
    ("storage.googleapis.com", PATHS),
    ("s3.amazonaws.com", PATHS),
    ("github.com", PATHS),
    ("api.github.com", PATHS),
    ("gist.github.com", PATHS),
    ("uploads.github.com", PATHS),
    ("gitlab.com", PATHS),
    ("bitbucket.org", PATHS),
    ("dev.azure.com", PATHS),
    ("huggingface.co", PATHS),
    ("registry-1.docker.io", IMAGES),
    ("ghcr.io", IMAGES),
    ("quay.io", IMAGES),
    ("registry.npmjs.org", IMAGES),
    ("upload.pypi.org", IMAGES),
    ("api.dropboxapi.com", PATHS),
    ("content.dropboxapi.com", PATHS),
    ("api.telegram.org", PATHS),
    ("hooks.slack.com", PATHS),
    ("pastebin.com", PATHS),
];

const PATHS: &str = "data from anybody with an account, and only the path says whose; use a mirror \
     of your own, or a proxy that reads paths";
const IMAGES: &str = "packages from anybody with an account, who can put anything in them; use a \
     mirror of your own, which only reads";

/// What does nothing without another rule.
pub(super) struct Need {
    /// A tag, a name, or `*.` and what is above it.
    pub(super) of: &'static str,
    /// Tags and names one of which it needs. The first is what to write.
    pub(super) any: &'static [&'static str],
    pub(super) why: &'static str,
}

pub(super) const NEEDS: [Need; 7] = [
    Need {
        of: "MicrosoftContainerRegistry",
        any: &["AzureFrontDoor.FirstParty"],
        why: "gives images through Microsoft's Front Door",
    },
    Need {
        of: "mcr.microsoft.com",
        any: &["*.data.mcr.microsoft.com", "MicrosoftContainerRegistry"],
        why: "names images, and another host has their layers",
    },
    Need {
        of: "AzureContainerRegistry",
        any: &["*.data.azurecr.io", "*.blob.core.windows.net", "Storage"],
        why: "names images, and other hosts have their layers (a registry's own, with dedicated data endpoints)",
    },
    Need {
        of: "*.azurecr.io",
        any: &["*.data.azurecr.io", "*.blob.core.windows.net", "Storage"],
        why: "names images, and other hosts have their layers (a registry's own, with dedicated data endpoints)",
    },
    Need {
        of: "pypi.org",
        any: &["files.pythonhosted.org"],
        why: "names packages, and another host has them",
    },
    Need {
        of: "registry-1.docker.io",
        any: &["auth.docker.io"],
        why: "gives nothing without a token of another host",
    },
    Need {
        of: "huggingface.co",
        any: &["*.hf.co"],
        why: "names models, and other hosts have their files",
    },
];
