use nix::time::{ClockId, clock_gettime};

use super::*;

fn hash(password: &str, cost: u32) -> Hash {
    let hash = bcrypt::hash_with_salt(password, cost, *b"sixteen letters!").unwrap();
    Hash::parse(&hash.format_for_version(bcrypt::Version::TwoB)).unwrap()
}

fn says(user: &str, password: &str) -> Credentials {
    Credentials {
        user: user.to_owned(),
        password: password.as_bytes().to_vec(),
    }
}

fn users(of: &[(&str, &str, u32)]) -> Users {
    let mut users = Users::default();
    for (user, password, cost) in of {
        users.insert((*user).to_owned(), hash(password, *cost));
    }
    users
}

fn of(header: &str) -> Option<Credentials> {
    let mut headers = HeaderMap::new();
    headers.insert(header::AUTHORIZATION, header.parse().unwrap());
    credentials(&headers)
}

#[test]
fn a_name_ends_at_the_first_colon_and_what_is_no_name_and_password_is_none() {
    // alice:a:b
    assert_eq!(of("Basic YWxpY2U6YTpi"), Some(says("alice", "a:b")));
    assert_eq!(of("basic   YWxpY2U6YTpi"), Some(says("alice", "a:b")));
    for wrong in [
        "",
        "Basic",
        "Basic !",
        "Bearer YWxpY2U6YTpi",
        "Basic YWxpY2U=",
        "Basic /zpi",
    ] {
        assert_eq!(of(wrong), None, "{wrong}");
    }
}

#[test]
fn only_the_users_own_password_is_right() {
    let users = users(&[("alice", "a", 4), ("bob", "b", 5)]);
    assert!(users.verify(&says("alice", "a")) && users.verify(&says("bob", "b")));
    for (user, password) in [
        ("alice", "b"),
        ("bob", "a"),
        ("carol", "a"),
        ("", ""),
        ("alice", ""),
    ] {
        assert!(!users.verify(&says(user, password)), "{user} {password}");
    }
}

/// Time of a processor, for others take away what the clock shows.
fn cost(users: &Users, user: &str) -> f64 {
    let now = || {
        let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap();
        time.tv_sec() as f64 + time.tv_nsec() as f64 / 1e9
    };
    let begun = now();
    users.verify(&says(user, "wrong"));
    now() - begun
}

#[test]
fn who_is_unknown_takes_as_long_as_who_is_known_whatever_their_hashes_cost() {
    let users = users(&[("cheap", "a", 4), ("dear", "b", 7)]);
    let median = |user: &str| {
        let mut costs: Vec<f64> = (0..5).map(|_| cost(&users, user)).collect();
        costs.sort_by(f64::total_cmp);
        costs[2]
    };
    let [cheap, dear, nobody] = ["cheap", "dear", "nobody"].map(median);
    for (one, other) in [(cheap, dear), (dear, nobody), (nobody, cheap)] {
        assert!(
            (0.5..2.0).contains(&(one / other)),
            "{cheap} {dear} {nobody}"
        );
    }
}

#[test]
fn hashes_that_would_take_seconds_are_refused() {
    let of_cost =
        |cost| format!("$2y${cost}$Vs9i1h.kGsqWtIQEdZXyYeYHUyTXkZsWEHqMaMzKS0pQjOSXmnS2K");
    assert!(Hash::parse(&of_cost(14)).is_ok());
    assert!(Hash::parse(&of_cost(15)).unwrap_err().contains("cost 15"));
    for wrong in [
        "",
        "secret",
        "$2y$10$short",
        "$1$abc$def",
        "$2y$99$Vs9i1h.kGsqWtIQEdZXyYeYHUyTXkZsWEHqMaMzKS0pQjOSXmnS2K",
    ] {
        assert!(Hash::parse(wrong).is_err(), "{wrong}");
    }
}

fn gate() -> Gate {
    Gate::of(Arc::new(Guard::of(None).unwrap())).unwrap()
}

async fn asks(gate: &Gate, users: &Users, user: &str, password: &str, from: [u8; 4]) -> char {
    match gate
        .admit(users.clone(), says(user, password), from.into())
        .await
    {
        Admission::Granted => 'g',
        Admission::Refused => 'r',
        Admission::Busy => 'b',
    }
}

#[tokio::test]
async fn what_was_right_is_not_computed_again_and_who_waits_too_long_a_line_is_told_so() {
    let (gate, users) = (gate(), users(&[("alice", "a", 8)]));
    assert_eq!(asks(&gate, &users, "alice", "a", [1, 1, 1, 1]).await, 'g');
    let turn = Arc::clone(&gate.computing).acquire_owned().await.unwrap();
    // Nothing is computed while this is held.
    assert_eq!(asks(&gate, &users, "alice", "a", [1, 1, 1, 2]).await, 'g');
    let first = asks(&gate, &users, "alice", "x", [1, 1, 1, 1]);
    let second = asks(&gate, &users, "bob", "x", [1, 1, 1, 1]);
    let third = async {
        tokio::task::yield_now().await;
        let of_one = asks(&gate, &users, "alice", "x", [1, 1, 1, 1]).await;
        drop(turn);
        of_one
    };
    let answers = tokio::join!(first, second, third);
    assert_eq!(answers, ('r', 'r', 'b'));
    assert!(gate.known().waiting.is_empty());
    // What was right under another hash is not right any more.
    let changed = self::users(&[("alice", "b", 4)]);
    assert_eq!(asks(&gate, &changed, "alice", "a", [1, 1, 1, 1]).await, 'r');
}

#[tokio::test]
async fn of_many_addresses_few_wait() {
    let (gate, users) = (Arc::new(gate()), users(&[("alice", "a", 4)]));
    let turn = Arc::clone(&gate.computing).acquire_owned().await.unwrap();
    let waiting: Vec<_> = (0..WAITING)
        .map(|number| {
            let (gate, users) = (Arc::clone(&gate), users.clone());
            let from = [9, 9, 9, u8::try_from(number).unwrap()];
            tokio::spawn(async move { asks(&gate, &users, "x", "x", from).await })
        })
        .collect();
    tokio::task::yield_now().await;
    assert_eq!(asks(&gate, &users, "x", "x", [8, 8, 8, 8]).await, 'b');
    drop(turn);
    for each in waiting {
        assert_eq!(each.await.unwrap(), 'r');
    }
}
