//! Campaigns against an apiserver of one Lease, under a clock that stands still until everybody waits.

mod apiserver;

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use self::apiserver::{Apiserver, Link};
use super::{
    Ended, LEASE_DURATION, Leadership, LeaseSettings, RENEW_DEADLINE, UnusableLease, campaign,
};

/// What the design promises for a leader that dies without a word.
const TAKEOVER: Duration = Duration::from_secs(15);
const TICK: Duration = Duration::from_millis(50);

fn settings(identity: &str) -> LeaseSettings {
    LeaseSettings::new("phoenix-system", "phoenix-controller", identity)
}

struct Contender {
    leadership: Leadership,
    link: Link,
    shutdown: CancellationToken,
    task: JoinHandle<Ended>,
}

impl Contender {
    fn start(server: &Apiserver, identity: &str) -> Self {
        let link = Link::default();
        let (leadership, campaign) =
            campaign(server.client(&link), settings(identity)).expect("usable settings");
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(campaign.run(shutdown.clone()));
        Self {
            leadership,
            link,
            shutdown,
            task,
        }
    }

    async fn leads_within(&self, limit: Duration) {
        timeout(limit, self.leadership.leading())
            .await
            .expect("leads in time");
        assert!(self.leadership.is_leader());
    }

    async fn ended(self) -> Ended {
        timeout(Duration::from_secs(30), self.task)
            .await
            .expect("ends")
            .expect("no panic")
    }
}

#[tokio::test(start_paused = true)]
async fn an_absent_lease_is_created_and_renewed() {
    let server = Apiserver::default();
    let a = Contender::start(&server, "a");
    a.leads_within(Duration::from_secs(1)).await;
    let first = server.spec();
    assert_eq!(first.holder_identity.as_deref(), Some("a"));
    assert_eq!(first.lease_duration_seconds, Some(11));
    assert_eq!(first.lease_transitions, Some(0));
    assert!(first.acquire_time.is_some());

    sleep(Duration::from_mins(1)).await;
    assert!(a.leadership.is_leader(), "renewals keep it");
    let later = server.spec();
    assert_ne!(later.renew_time, first.renew_time);
    assert_eq!(later.acquire_time, first.acquire_time, "acquired once");
    assert_eq!(later.lease_transitions, Some(0));
}

#[tokio::test(start_paused = true)]
async fn a_free_lease_is_taken_at_once_and_keeps_what_others_wrote() {
    for free in [None, Some("")] {
        let server = Apiserver::default();
        server.put_holder(free, 7);
        server.annotate("keep", "me");
        let a = Contender::start(&server, "a");
        a.leads_within(Duration::from_secs(1)).await;
        assert_eq!(server.spec().lease_transitions, Some(8));
        assert_eq!(server.annotation("keep").as_deref(), Some("me"));
    }
}

#[tokio::test(start_paused = true)]
async fn one_of_many_wins_the_race_for_a_free_lease() {
    let server = Apiserver::default();
    let contenders: Vec<_> = ["a", "b", "c", "d"]
        .map(|identity| Contender::start(&server, identity))
        .into();
    let until = Instant::now() + Duration::from_secs(40);
    while Instant::now() < until {
        sleep(TICK).await;
        let leaders = contenders.iter().filter(|c| c.leadership.is_leader());
        assert_eq!(leaders.count(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_standby_takes_over_from_a_dead_leader_in_time_and_not_too_early() {
    // The moment of death within the renewal period decides how much of it the standby has seen.
    for lived in [20_000, 20_700, 21_300, 21_999] {
        let server = Apiserver::default();
        let a = Contender::start(&server, "a");
        a.leads_within(Duration::from_secs(1)).await;
        let b = Contender::start(&server, "b");
        sleep(Duration::from_millis(lived)).await;
        assert!(!b.leadership.is_leader());

        a.task.abort();
        let died = Instant::now();
        let renewed = server.written();
        b.leads_within(TAKEOVER).await;
        assert!(!a.leadership.is_leader(), "its campaign is gone");
        assert!(a.leadership.lost().is_cancelled());
        assert!(died.elapsed() <= TAKEOVER, "{:?}", died.elapsed());
        assert!(
            renewed.elapsed() >= LEASE_DURATION,
            "{:?}",
            renewed.elapsed()
        );
        assert_eq!(server.spec().lease_transitions, Some(1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_cut_off_gives_up_before_another_begins() {
    for cut in [Link::SWALLOWS, Link::REFUSES, Link::LOSES_ANSWERS] {
        let server = Apiserver::default();
        let a = Contender::start(&server, "a");
        a.leads_within(Duration::from_secs(1)).await;
        let b = Contender::start(&server, "b");
        sleep(Duration::from_millis(20_300)).await;

        a.link.set(cut);
        let (mut a_ended, mut b_began) = (None, None);
        let cut_at = Instant::now();
        while cut_at.elapsed() < Duration::from_secs(40) && b_began.is_none() {
            sleep(TICK).await;
            let (a, b) = (a.leadership.is_leader(), b.leadership.is_leader());
            assert!(
                !(a && b),
                "two leaders {:?} after the cut ({cut:?})",
                cut_at.elapsed()
            );
            if !a {
                a_ended.get_or_insert_with(Instant::now);
            }
            if b {
                b_began = Some(Instant::now());
            }
        }
        let a_ended = a_ended.expect("gives up");
        assert!(a_ended.duration_since(cut_at) <= RENEW_DEADLINE + TICK);
        let margin = b_began.expect("the standby leads").duration_since(a_ended);
        let promised = LEASE_DURATION.saturating_sub(RENEW_DEADLINE + TICK);
        assert!(margin >= promised, "{margin:?} ({cut:?})");
        assert!(a.leadership.lost().is_cancelled());
        a.link.set(Link::WORKS);
        let ended = a.ended().await;
        assert!(
            matches!(&ended, Ended::Lost { why } if why.contains("no renewal")),
            "{ended:?}"
        );
        sleep(Duration::from_secs(30)).await;
        assert!(b.leadership.is_leader());
    }
}

#[tokio::test(start_paused = true)]
async fn a_short_outage_costs_nothing() {
    for outage in [Link::SWALLOWS, Link::REFUSES, Link::LOSES_ANSWERS] {
        let server = Apiserver::default();
        let a = Contender::start(&server, "a");
        a.leads_within(Duration::from_secs(1)).await;
        let b = Contender::start(&server, "b");
        sleep(Duration::from_secs(20)).await;
        a.link.set(outage);
        sleep(Duration::from_secs(4)).await;
        a.link.set(Link::WORKS);
        for _ in 0..400 {
            sleep(TICK).await;
            assert!(a.leadership.is_leader(), "{outage:?}");
            assert!(!b.leadership.is_leader(), "{outage:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn leadership_ends_with_its_deadline_even_if_nobody_renews_or_looks() {
    let server = Apiserver::default();
    let a = Contender::start(&server, "a");
    a.leads_within(Duration::from_secs(1)).await;
    a.link.set(Link::SWALLOWS);
    // Advancing the clock without a yield: the campaign's task does not run in between.
    let leadership = a.leadership.clone();
    let advance = tokio::time::advance(RENEW_DEADLINE);
    tokio::pin!(advance);
    assert!(futures::poll!(&mut advance).is_pending());
    assert!(!leadership.is_leader());
}

#[tokio::test(start_paused = true)]
async fn clocks_of_other_nodes_do_not_matter() {
    // A holder whose wall clock is far behind or ahead, and who is alive.
    for year in [1999, 2099] {
        let server = Apiserver::default();
        server.put_holder(Some("foreign"), 0);
        let b = Contender::start(&server, "b");
        for second in 0..40 {
            server.renew_at(year, second);
            sleep(Duration::from_secs(1)).await;
            assert!(!b.leadership.is_leader(), "{year}");
        }
        // And who then dies.
        b.leads_within(TAKEOVER).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_holders_own_promise_counts() {
    let server = Apiserver::default();
    server.put_holder(Some("patient"), 0);
    server.promise(60);
    let b = Contender::start(&server, "b");
    sleep(Duration::from_secs(59)).await;
    assert!(!b.leadership.is_leader());
    b.leads_within(Duration::from_secs(3)).await;
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_hands_over_at_once() {
    let server = Apiserver::default();
    let a = Contender::start(&server, "a");
    a.leads_within(Duration::from_secs(1)).await;
    let b = Contender::start(&server, "b");
    sleep(Duration::from_secs(20)).await;

    let leadership = a.leadership.clone();
    a.shutdown.cancel();
    assert_eq!(a.ended().await, Ended::Released);
    assert!(!leadership.is_leader());
    assert!(leadership.lost().is_cancelled());
    b.leads_within(Duration::from_millis(2_500)).await;
}

#[tokio::test(start_paused = true)]
async fn a_release_survives_a_renewal_whose_answer_was_cut_short() {
    let server = Apiserver::default();
    let a = Contender::start(&server, "a");
    a.leads_within(Duration::from_secs(1)).await;
    a.link.set(Link::LOSES_ANSWERS);
    sleep(Duration::from_millis(2_100)).await;
    a.link.set(Link::WORKS);
    a.shutdown.cancel();
    assert_eq!(a.ended().await, Ended::Released);
    assert_eq!(server.spec().holder_identity, None);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_is_bounded_without_an_apiserver() {
    let server = Apiserver::default();
    let a = Contender::start(&server, "a");
    a.leads_within(Duration::from_secs(1)).await;
    let b = Contender::start(&server, "b");
    sleep(Duration::from_secs(1)).await;
    for contender in [&a, &b] {
        contender.link.set(Link::SWALLOWS);
        contender.shutdown.cancel();
    }
    let started = Instant::now();
    assert_eq!(a.ended().await, Ended::Released);
    assert_eq!(b.ended().await, Ended::NeverLed);
    assert!(
        started.elapsed() < Duration::from_secs(4),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(server.spec().holder_identity.as_deref(), Some("a"));
}

#[tokio::test(start_paused = true)]
async fn a_standby_that_is_shut_down_changes_nothing() {
    let server = Apiserver::default();
    server.put_holder(Some("foreign"), 3);
    let before = server.spec();
    let b = Contender::start(&server, "b");
    sleep(Duration::from_secs(5)).await;
    b.shutdown.cancel();
    assert_eq!(b.ended().await, Ended::NeverLed);
    assert_eq!(server.spec(), before);
}

#[tokio::test(start_paused = true)]
async fn a_deleted_lease_is_made_again() {
    let server = Apiserver::default();
    let a = Contender::start(&server, "a");
    a.leads_within(Duration::from_secs(1)).await;
    server.delete();
    sleep(Duration::from_secs(3)).await;
    assert_eq!(server.spec().holder_identity.as_deref(), Some("a"));
    sleep(Duration::from_secs(20)).await;
    assert!(a.leadership.is_leader());
}

#[tokio::test(start_paused = true)]
async fn a_lease_taken_by_force_is_not_fought_over() {
    let server = Apiserver::default();
    let a = Contender::start(&server, "a");
    a.leads_within(Duration::from_secs(1)).await;
    server.put_holder(Some("usurper"), 1);
    let leadership = a.leadership.clone();
    let ended = a.ended().await;
    assert!(
        matches!(&ended, Ended::Lost { why } if why.contains("usurper")),
        "{ended:?}"
    );
    assert!(!leadership.is_leader());
    assert_eq!(server.spec().holder_identity.as_deref(), Some("usurper"));
    let again = timeout(Duration::from_mins(1), leadership.leading()).await;
    assert!(again.is_err(), "what is lost stays lost");
}

#[tokio::test(start_paused = true)]
async fn an_unreachable_apiserver_delays_the_start_only() {
    for outage in [Link::SWALLOWS, Link::REFUSES] {
        let server = Apiserver::default();
        let a = Contender::start(&server, "a");
        a.link.set(outage);
        sleep(Duration::from_secs(90)).await;
        assert!(!a.leadership.is_leader());
        a.link.set(Link::WORKS);
        a.leads_within(Duration::from_secs(5)).await;
    }
}

#[tokio::test]
async fn without_an_election_one_always_leads() {
    let leadership = Leadership::always();
    assert!(leadership.is_leader());
    leadership.leading().await;
    leadership.lost().cancel();
    assert!(
        leadership.is_leader(),
        "cancelling one's own copy ends nothing"
    );
    assert!(!leadership.lost().is_cancelled());
}

#[tokio::test]
async fn a_campaign_that_is_dropped_leads_nowhere() {
    let server = Apiserver::default();
    let (leadership, campaign) = campaign(server.client(&Link::default()), settings("a")).unwrap();
    assert!(!leadership.is_leader());
    drop(campaign);
    assert!(leadership.lost().is_cancelled());
}

#[tokio::test]
async fn timings_that_allow_two_leaders_are_refused() {
    let server = Apiserver::default();
    let refused = |change: fn(&mut LeaseSettings)| {
        let mut settings = settings("a");
        change(&mut settings);
        campaign(server.client(&Link::default()), settings).expect_err("refused")
    };
    assert_eq!(refused(|s| s.identity.clear()), UnusableLease::NoIdentity);
    for change in [
        (|s| s.lease_duration = s.renew_deadline) as fn(&mut LeaseSettings),
        |s| s.renew_deadline = s.retry_period,
        |s| s.retry_period = Duration::ZERO,
    ] {
        assert!(matches!(refused(change), UnusableLease::Timings { .. }));
    }
}
