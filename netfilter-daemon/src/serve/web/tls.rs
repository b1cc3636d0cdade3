//! From `tls_server_config` to what rustls needs.

use std::{fs, path::PathBuf, sync::Arc};

use rustls::{
    RootCertStore, ServerConfig, SupportedCipherSuite, SupportedProtocolVersion,
    crypto::{CryptoProvider, SupportedKxGroup, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
    version,
};

use super::super::client::AnyCertificate;
use crate::policy::error::{At, Problems};

/// A file that is named, and where.
pub(super) struct File {
    pub(super) path: PathBuf,
    pub(super) at: At,
}

/// Whether clients show certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Clients {
    Unasked,
    Asked,
    Any,
    VerifiedIfGiven,
    Verified,
}

/// The names of Go's `tls.ClientAuthType`.
pub(super) const CLIENTS: [(&str, Clients); 5] = [
    ("NoClientCert", Clients::Unasked),
    ("RequestClientCert", Clients::Asked),
    ("RequireAnyClientCert", Clients::Any),
    ("VerifyClientCertIfGiven", Clients::VerifiedIfGiven),
    ("RequireAndVerifyClientCert", Clients::Verified),
];

/// Older ones are not spoken: RFC 8996 says that nobody should.
pub(super) const VERSIONS: [(&str, Version); 2] =
    [("TLS12", Version::V12), ("TLS13", Version::V13)];

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Version {
    V12,
    V13,
}

/// What the file says of TLS.
pub(super) struct Secured {
    pub(super) certificate: File,
    pub(super) key: File,
    pub(super) clients: Clients,
    pub(super) authorities: Option<File>,
    pub(super) oldest: Option<(Version, At)>,
    pub(super) newest: Option<(Version, At)>,
    /// By their names, and where these stand. Empty: all.
    pub(super) suites: Vec<(String, At)>,
    pub(super) curves: Vec<(String, At)>,
    pub(super) prefer_ours: bool,
    pub(super) at: At,
}

impl Secured {
    pub(super) fn files(&self) -> Vec<PathBuf> {
        let files = [
            Some(&self.certificate),
            Some(&self.key),
            self.authorities.as_ref(),
        ];
        files
            .into_iter()
            .flatten()
            .map(|file| file.path.clone())
            .collect()
    }

    /// Whether nobody is served who does not hold a certificate of a named authority.
    pub(super) fn proves(&self) -> bool {
        self.clients == Clients::Verified
    }

    pub(super) fn config(&self, problems: &mut Problems) -> Option<Arc<ServerConfig>> {
        let provider = Arc::new(self.provider(problems));
        let versions = self.versions(problems);
        let chain = certificates(&self.certificate, "cert_file", problems);
        let key = self.key(problems);
        let verifier = self.verifier(&provider, problems)?;
        let (chain, key) = (chain?, key?);
        if !problems.none_so_far() {
            return None;
        }
        let builder = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions)
            .map_err(|error| problems.add(self.at, format!("no TLS is left to speak: {error}")))
            .ok()?;
        let builder = match verifier {
            None => builder.with_no_client_auth(),
            Some(verifier) => builder.with_client_cert_verifier(verifier),
        };
        match builder.with_single_cert(chain, key) {
            Ok(mut config) => {
                config.ignore_client_order = self.prefer_ours;
                config.alpn_protocols = vec![b"http/1.1".to_vec()];
                Some(Arc::new(config))
            }
            Err(error) => {
                let (key, certificate) = (self.key.path.display(), self.certificate.path.display());
                problems.add(
                    self.key.at,
                    format!("{key} is no key for {certificate}: {error}; name the one that belongs to it"),
                );
                None
            }
        }
    }

    fn key(&self, problems: &mut Problems) -> Option<PrivateKeyDer<'static>> {
        let bytes = bytes(&self.key, "key_file", problems)?;
        let key = PrivateKeyDer::from_pem_slice(&bytes);
        let path = self.key.path.display();
        key.map_err(|error| {
            problems.add(
                self.key.at,
                format!("{path} holds no private key: {error}; it is PEM, and not encrypted"),
            );
        })
        .ok()
    }

    fn versions(&self, problems: &mut Problems) -> Vec<&'static SupportedProtocolVersion> {
        let oldest = self.oldest.map_or(Version::V12, |(version, _)| version);
        let newest = self.newest.map_or(Version::V13, |(version, _)| version);
        if oldest > newest
            && let Some((_, at)) = self.newest
        {
            problems.add(
                at,
                "`max_version` is older than `min_version`; leave one of them out",
            );
        }
        let all = [
            (Version::V12, &version::TLS12),
            (Version::V13, &version::TLS13),
        ];
        let spoken = all
            .into_iter()
            .filter(|(version, _)| (oldest..=newest).contains(version));
        spoken.map(|(_, version)| version).collect()
    }

    fn provider(&self, problems: &mut Problems) -> CryptoProvider {
        let mut provider = ring::default_provider();
        if !self.suites.is_empty() {
            // Those of TLS 1.3 cannot be chosen, as in Go.
            let mut chosen: Vec<SupportedCipherSuite> = provider.cipher_suites.clone();
            chosen.retain(|suite| suite.tls13().is_some());
            chosen.extend(pick(
                &self.suites,
                "cipher_suites",
                &old_suites(&provider),
                problems,
            ));
            provider.cipher_suites = chosen;
        }
        if !self.curves.is_empty() {
            let known: [(String, &'static dyn SupportedKxGroup); 3] = [
                ("X25519".to_owned(), ring::kx_group::X25519),
                ("CurveP256".to_owned(), ring::kx_group::SECP256R1),
                ("CurveP384".to_owned(), ring::kx_group::SECP384R1),
            ];
            provider.kx_groups = pick(&self.curves, "curve_preferences", &known, problems);
        }
        provider
    }

    /// Nothing inside where clients are not asked; nothing where something is wrong.
    fn verifier(
        &self,
        provider: &Arc<CryptoProvider>,
        problems: &mut Problems,
    ) -> Option<Option<Arc<dyn ClientCertVerifier>>> {
        let mandatory = match (self.clients, &self.authorities) {
            (Clients::Unasked, None) => return Some(None),
            (Clients::Asked | Clients::Any, _) => {
                let any = AnyCertificate::new(provider, self.clients == Clients::Any);
                return Some(Some(Arc::new(any)));
            }
            (Clients::Unasked, Some(authorities)) => {
                problems.add(
                    authorities.at,
                    "nobody is asked for a certificate of this authority; add \
                     `client_auth_type: RequireAndVerifyClientCert`",
                );
                return None;
            }
            (Clients::VerifiedIfGiven, _) => false,
            (Clients::Verified, _) => true,
        };
        let Some(authorities) = &self.authorities else {
            problems.add(
                self.at,
                "`client_auth_type` needs the authority of the certificates; write \
                 `client_ca_file: clients.pem`",
            );
            return None;
        };
        let mut roots = RootCertStore::empty();
        for certificate in certificates(authorities, "client_ca_file", problems)? {
            if let Err(error) = roots.add(certificate) {
                let path = authorities.path.display();
                problems.add(
                    authorities.at,
                    format!("{path} holds no authority: {error}"),
                );
                return None;
            }
        }
        let provider = Arc::clone(provider);
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        let builder = match mandatory {
            true => builder,
            false => builder.allow_unauthenticated(),
        };
        match builder.build() {
            Ok(verifier) => Some(Some(verifier)),
            Err(error) => {
                problems.add(
                    authorities.at,
                    format!("clients cannot be verified: {error}"),
                );
                None
            }
        }
    }
}

/// Those of TLS 1.2, by the names of IANA.
fn old_suites(provider: &CryptoProvider) -> Vec<(String, SupportedCipherSuite)> {
    let suites = provider.cipher_suites.iter();
    let suites = suites.filter(|suite| suite.tls13().is_none());
    suites
        .map(|suite| (format!("{:?}", suite.suite()), *suite))
        .collect()
}

fn pick<T: Copy>(
    names: &[(String, At)],
    key: &str,
    known: &[(String, T)],
    problems: &mut Problems,
) -> Vec<T> {
    let mut picked = Vec::new();
    for (name, at) in names {
        match known.iter().find(|(known, _)| known == name) {
            Some((_, found)) => picked.push(*found),
            None => {
                let known: Vec<&str> = known.iter().map(|(name, _)| name.as_str()).collect();
                problems.add(
                    *at,
                    format!(
                        "`{name}` is not spoken here; `{key}` knows {}",
                        known.join(", ")
                    ),
                );
            }
        }
    }
    picked
}

fn certificates(
    file: &File,
    key: &str,
    problems: &mut Problems,
) -> Option<Vec<CertificateDer<'static>>> {
    let bytes = bytes(file, key, problems)?;
    let listed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let path = file.path.display();
    match listed {
        Ok(listed) if !listed.is_empty() => Some(listed),
        Ok(_) => {
            problems.add(
                file.at,
                format!("{path} holds no certificate; it is PEM, `BEGIN CERTIFICATE`"),
            );
            None
        }
        Err(error) => {
            problems.add(
                file.at,
                format!("{path} holds no certificate: {error}; it is PEM"),
            );
            None
        }
    }
}

fn bytes(file: &File, key: &str, problems: &mut Problems) -> Option<Vec<u8>> {
    let path = file.path.display();
    let read = fs::read(&file.path);
    read.map_err(|error| {
        problems.add(
            file.at,
            format!("cannot read {path}: {error}; `{key}` is relative to this file's directory"),
        );
    })
    .ok()
}
