//! A clock that was ahead: what it signed is explained by two officers, and by nobody else.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use record::authority::{Level, Role};
use record::id::{Origin, UnixMillis};
use registry::RegistryError;
use registry::audit::realm::audit;
use registry::plan::approve::plan_id;
use registry::plan::list::PlanLine;
use registry::plan::request::PlanRequest;
use registry::verify::{VerifyReport, verify};
use tests::realm::{DAY, NOW, REALM, Site, origin, rows, settle};

const REASON: &str = "battery of the clock, replaced 2026-11-19";

fn checked(site: &Site) -> VerifyReport {
    verify(&site.dir).unwrap()
}

fn plan(site: &Site, origin: &Origin) -> registry::Result<PlanLine> {
    let request = PlanRequest::ExplainClock {
        origin: origin.clone(),
        reason: REASON.into(),
    };
    site.registry.plan(&site.officer, &request, NOW)
}

#[test]
fn acts_of_a_clock_that_was_ahead_hold_once_two_officers_explained_them() {
    let base = tempfile::tempdir().unwrap();
    let district = Site::root(base.path(), REALM, "jiangjin", NOW);
    let town = Site::join(&district, base.path(), "shuangfu", Level::Town, NOW);
    let both = [(&town, &district)];
    let clerk = town.operator(Role::Clerk, None, NOW);
    let person = origin("shuangfu", "person");
    town.import(&clerk, "person", &rows("person", 1, 3, 1), NOW);
    settle(&both, NOW);
    assert!(checked(&town).ok, "{:?}", checked(&town).findings);
    // Nothing is late: there is nothing to explain, and of another's ledger there never is.
    let refused = plan(&town, &person);
    assert!(matches!(refused, Err(RegistryError::BadRequest(_))));
    let refused = plan(&town, &origin("jiangjin", "authority"));
    assert!(matches!(refused, Err(RegistryError::NotFound { .. })));

    let ahead = UnixMillis(NOW.0 + 2 * DAY);
    town.import(&clerk, "person", &rows("person", 2, 3, 2), ahead);
    settle(&both, NOW);
    town.import(&clerk, "person", &rows("person", 3, 3, 3), NOW);
    settle(&both, NOW);
    for site in [&town, &district] {
        let report = checked(site);
        let late = |what: &str| what.contains("explain-clock");
        assert!(!report.ok && report.findings.iter().all(|f| late(&f.what)));
    }

    // Planned, and approved, it explains nothing yet; the maker's own word never counts.
    let line = plan(&town, &person).unwrap();
    let id = plan_id(&line.id).unwrap();
    let own = town.registry.approve(&town.officer, &id, true, NOW);
    assert!(own.is_err());
    assert!(town.registry.run_plan(&town.officer, &id, NOW).is_err());
    settle(&both, NOW);
    district
        .registry
        .approve(&district.officer, &id, true, NOW)
        .unwrap();
    settle(&both, NOW);
    assert!(!checked(&town).ok);
    town.registry.run_plan(&town.officer, &id, NOW).unwrap();
    settle(&both, NOW);
    for site in [&town, &district] {
        let report = checked(site);
        assert!(report.ok, "{:?}", report.findings);
        assert!(report.remarks.is_empty(), "{:?}", report.remarks);
        assert_eq!(report.explained.len(), 1);
        let explained = &report.explained[0];
        assert_eq!(explained.origin.as_deref(), Some(person.as_str()));
        assert!(explained.what.contains(REASON) && explained.what.contains(&line.id));
        let all = audit(&site.dir, NOW).unwrap();
        assert!(all.ok, "{:?}", all.findings);
        let codes: Vec<&str> = all.findings.iter().map(|f| f.code).collect();
        assert!(codes.contains(&"clock-explained"));
        assert!(
            !codes
                .iter()
                .any(|c| ["clock-ahead", "clock-back"].contains(c))
        );
    }

    // What claims more than the officers saw is not covered, whatever was explained before.
    let later = UnixMillis(NOW.0 + 3 * DAY);
    town.import(&clerk, "person", &rows("person", 4, 3, 4), later);
    settle(&both, NOW);
    let report = checked(&town);
    assert!(!report.ok && report.explained.len() == 1);
    // A second plan explains the rest.
    let line = plan(&town, &person).unwrap();
    assert_ne!(plan_id(&line.id).unwrap(), id);
}
