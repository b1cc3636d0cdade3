//! Names and passwords (RFC 7617), hashed with bcrypt.
//!
//! A hash takes a twentieth of a second of a processor by design, and whoever reaches the
//! listener can have it computed. So one is computed at a time, with a rest after each that was
//! wrong, few wait for that, and what was right once is remembered.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use axum::{
    extract::{ConnectInfo, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use ring::{hmac, rand::SystemRandom};
use tokio::{sync::Semaphore, task::spawn_blocking, time::sleep};

use super::{secured::Client, web::Guard};

/// Each more doubles the time of a processor; 14 is about a second.
pub(super) const MAX_COST: u32 = 14;
/// Requests that wait for a hash; others are told to come again.
const WAITING: u32 = 8;
/// Of them, of one address.
const WAITING_OF_ONE: u32 = 2;
/// So many times as long as a wrong password took, nothing is computed.
const REST: u32 = 4;

/// A password's hash, as htpasswd writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hash {
    text: String,
    cost: u32,
}

/// Names and the hashes of their passwords. Empty: nobody is asked.
#[derive(Debug, Clone, Default)]
pub(super) struct Users(BTreeMap<String, Hash>);

/// What a request says it is.
#[derive(Debug, PartialEq, Eq)]
struct Credentials {
    user: String,
    password: Vec<u8>,
}

impl Hash {
    /// What is wrong with it is the end of a sentence.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let Ok(parts) = text.parse::<bcrypt::HashParts>() else {
            return Err("is no bcrypt hash, which begins with $2y$".to_owned());
        };
        let cost = parts.get_cost();
        match cost {
            ..=MAX_COST => Ok(Self {
                text: text.to_owned(),
                cost,
            }),
            _ => Err(format!(
                "has a hash of cost {cost}, which takes a processor seconds for each that is wrong"
            )),
        }
    }
}

impl Users {
    pub(super) fn insert(&mut self, user: String, hash: Hash) {
        self.0.insert(user, hash);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether these are the user's. It takes as long whoever is named: of each cost that
    /// somebody's hash has, one is computed.
    fn verify(&self, credentials: &Credentials) -> bool {
        let mut stand_ins: BTreeMap<u32, &Hash> = BTreeMap::new();
        for hash in self.0.values() {
            stand_ins.entry(hash.cost).or_insert(hash);
        }
        let own = self.0.get(&credentials.user);
        let mut verified = false;
        for (cost, stand_in) in stand_ins {
            let own = own.filter(|hash| hash.cost == cost);
            let hash = own.unwrap_or(stand_in);
            let is_right = bcrypt::verify(&credentials.password, &hash.text).unwrap_or(false);
            verified |= is_right & own.is_some();
        }
        verified
    }
}

/// Lets requests in.
#[derive(Debug)]
pub(super) struct Gate {
    guard: Arc<Guard>,
    known: Mutex<Known>,
    key: hmac::Key,
    computing: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Known {
    /// By user: what was right last, as a keyed hash of all that made it so.
    right: HashMap<String, hmac::Tag>,
    waiting: HashMap<IpAddr, u32>,
}

/// Of a request that came with a password that is right.
#[derive(Debug, Clone, Copy)]
pub(super) struct Proven;

enum Admission {
    Granted,
    Refused,
    Busy,
}

impl Gate {
    pub(super) fn of(guard: Arc<Guard>) -> std::io::Result<Self> {
        let Ok(key) = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()) else {
            return Err(std::io::Error::other("there are no random bytes"));
        };
        Ok(Self {
            guard,
            known: Mutex::default(),
            key,
            computing: Arc::new(Semaphore::new(1)),
        })
    }

    async fn admit(&self, users: Users, credentials: Credentials, from: IpAddr) -> Admission {
        let Some(what) = users
            .0
            .get(&credentials.user)
            .map(|hash| told(hash, &credentials))
        else {
            return self.compute(users, credentials, from, None).await;
        };
        let right = self.known().right.get(&credentials.user).copied();
        if right.is_some_and(|tag| hmac::verify(&self.key, &what, tag.as_ref()).is_ok()) {
            return Admission::Granted;
        }
        self.compute(users, credentials, from, Some(what)).await
    }

    async fn compute(
        &self,
        users: Users,
        credentials: Credentials,
        from: IpAddr,
        what: Option<Vec<u8>>,
    ) -> Admission {
        let Some(_place) = self.place(from) else {
            return Admission::Busy;
        };
        let Ok(turn) = Arc::clone(&self.computing).acquire_owned().await else {
            return Admission::Busy; // it is never closed
        };
        let user = credentials.user.clone();
        let begun = Instant::now();
        // The turn goes along: a client that leaves does not free it.
        let computed = spawn_blocking(move || (users.verify(&credentials), turn)).await;
        let Ok((is_right, turn)) = computed else {
            return Admission::Busy;
        };
        if let (true, Some(what)) = (is_right, what) {
            self.known()
                .right
                .insert(user, hmac::sign(&self.key, &what));
            return Admission::Granted;
        }
        let rest = begun.elapsed() * REST;
        tokio::spawn(async move {
            sleep(rest).await;
            drop(turn);
        });
        Admission::Refused
    }

    fn place(&self, from: IpAddr) -> Option<Place<'_>> {
        let mut known = self.known();
        let all: u32 = known.waiting.values().sum();
        let of_one = known.waiting.get(&from).copied().unwrap_or(0);
        if all >= WAITING || of_one >= WAITING_OF_ONE {
            return None;
        }
        known.waiting.insert(from, of_one + 1);
        Some(Place { gate: self, from })
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Among those who wait.
struct Place<'a> {
    gate: &'a Gate,
    from: IpAddr,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut known = self.gate.known();
        if let Some(waiting) = known.waiting.get_mut(&self.from) {
            *waiting -= 1;
            if *waiting == 0 {
                known.waiting.remove(&self.from);
            }
        }
    }
}

/// All that makes a password right. Lengths before parts, so that no two are one.
fn told(hash: &Hash, credentials: &Credentials) -> Vec<u8> {
    let parts = [
        credentials.user.as_bytes(),
        hash.text.as_bytes(),
        &credentials.password,
    ];
    let with_length = parts.iter().flat_map(|part| {
        let length = u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes();
        length.into_iter().chain(part.iter().copied())
    });
    with_length.collect()
}

/// Before every page.
pub(super) async fn check(
    State(gate): State<Arc<Gate>>,
    ConnectInfo(from): ConnectInfo<Client>,
    mut request: Request,
    next: Next,
) -> Response {
    let web = gate.guard.in_force();
    let admission = if web.users.is_empty() {
        Admission::Granted
    } else {
        match credentials(request.headers()) {
            Some(credentials) => {
                gate.admit(web.users.clone(), credentials, from.0.ip())
                    .await
            }
            None => Admission::Refused,
        }
    };
    let mut response = match admission {
        Admission::Granted => {
            if !web.users.is_empty() {
                request.extensions_mut().insert(Proven);
            }
            next.run(request).await
        }
        Admission::Refused => {
            let ask = [(
                header::WWW_AUTHENTICATE,
                "Basic realm=\"netfilter-daemon\", charset=\"UTF-8\"",
            )];
            (StatusCode::UNAUTHORIZED, ask, "Unauthorized\n").into_response()
        }
        Admission::Busy => {
            let later = [(header::RETRY_AFTER, "2")];
            let why = "too many passwords are being looked at; try again\n";
            (StatusCode::TOO_MANY_REQUESTS, later, why).into_response()
        }
    };
    let headers = response.headers_mut();
    for (name, value) in &web.headers {
        headers.insert(name.clone(), value.clone());
    }
    // Every answer ends its connection, also one that came from here.
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

fn credentials(headers: &HeaderMap) -> Option<Credentials> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = BASE64_STANDARD.decode(encoded.trim()).ok()?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    Some(Credentials {
        user: String::from_utf8(decoded.get(..colon)?.to_vec()).ok()?,
        password: decoded.get(colon + 1..)?.to_vec(),
    })
}

#[cfg(test)]
mod tests;
