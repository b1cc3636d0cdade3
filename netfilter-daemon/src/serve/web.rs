//! Who may read: TLS and passwords, by the web configuration of Prometheus and its exporters
//! (<https://prometheus.io/docs/prometheus/latest/configuration/https/>).

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use axum::http::{HeaderName, HeaderValue};
use rustls::ServerConfig;

use super::auth::Users;
use crate::policy::{
    self,
    error::{At, Problems},
};

mod read;
mod tls;

/// What the file says, ready to be used.
#[derive(Debug, Clone, Default)]
pub struct Web {
    /// `None`: connections are not encrypted.
    pub(super) tls: Option<Arc<ServerConfig>>,
    pub(super) users: Users,
    /// For every answer.
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// Whether clients must prove who they are, by a certificate.
    pub(super) proves: bool,
    /// Certificates and keys; all that is read but the file itself.
    files: Vec<PathBuf>,
}

/// The web configuration in force. Connections take what it is when they come.
#[derive(Debug)]
pub struct Guard {
    path: Option<PathBuf>,
    web: RwLock<Arc<Web>>,
}

impl Guard {
    /// `None`: whoever reaches the listener may read.
    ///
    /// # Errors
    /// Everything that is wrong with the file, with its place.
    pub fn of(path: Option<&Path>) -> Result<Self, policy::Error> {
        let web = path.map_or_else(|| Ok(Web::default()), read)?;
        Ok(Self {
            path: path.map(Path::to_owned),
            web: RwLock::new(Arc::new(web)),
        })
    }

    pub(super) fn in_force(&self) -> Arc<Web> {
        Arc::clone(&self.web.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The file, and those that it names.
    pub fn files(&self) -> Vec<PathBuf> {
        let files = self.path.iter().cloned();
        files.chain(self.in_force().files.iter().cloned()).collect()
    }

    /// Reads them again.
    ///
    /// # Errors
    /// As [`Self::of`]. What was in force remains.
    pub fn reload(&self) -> Result<(), policy::Error> {
        if let Some(path) = &self.path {
            let web = Arc::new(read(path)?);
            *self.web.write().unwrap_or_else(PoisonError::into_inner) = web;
        }
        Ok(())
    }

    /// Whether this process can read all of it, now that it has given up privileges.
    pub fn can_be_read(&self) -> bool {
        let denied = |file: &PathBuf| {
            fs::File::open(file).is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
        };
        !self.files().iter().any(denied)
    }

    /// Who can read what others should not, as a sentence.
    pub fn gap(&self, address: std::net::SocketAddr) -> Option<String> {
        if address.ip().to_canonical().is_loopback() {
            return None;
        }
        let web = self.in_force();
        let lacks = match (web.tls.is_some(), web.proves || !web.users.is_empty()) {
            (true, true) => return None,
            (false, false) => "without encryption, to whoever asks",
            (false, true) => "without encryption, and whoever is on the way reads the passwords",
            (true, false) => "to whoever asks",
        };
        Some(format!(
            "{address} is not of this machine alone: what is denied, and the names of interfaces and rules, are \
             shown there {lacks}; set tls_server_config and basic_auth_users in a --web-config"
        ))
    }
}

fn read(path: &Path) -> Result<Web, policy::Error> {
    let mut problems = Problems::new(&path.display().to_string());
    let web = match fs::read_to_string(path) {
        Ok(text) => {
            let directory = path.parent().unwrap_or(Path::new(""));
            read::web(&text, directory, &mut problems)
        }
        Err(error) => {
            problems.add(
                At::START,
                format!(
                    "cannot read the web configuration: {error}; name another with --web-config"
                ),
            );
            Web::default()
        }
    };
    problems.finish().map(|_| web)
}

#[cfg(test)]
mod tests;
