//! `fangzhi sync status` between real processes: it says the truth of a neighbour that is off, also
//! after a restart, and shows at the parent what the child runs.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use serde_json::{Value, json};
use tests::realm::clock;
use tests::trio::converge;
use tests::{Running, Site, rows, until};

fn sync(site: &Site) -> Value {
    site.json(["sync", "status"])
}

/// What the node says of a neighbour.
fn peer(status: &Value, name: &str) -> Value {
    let peers = status["peers"].as_array().unwrap();
    peers.iter().find(|p| p["peer"] == name).unwrap().clone()
}

fn of(node: &Running, name: &str) -> Value {
    peer(&sync(&node.site), name)
}

fn lacks(node: &Running, name: &str) -> Option<u64> {
    of(node, name)["lacks"].as_u64()
}

fn import(site: &Site, name: &str, seed: u64) {
    let file = site.dir.parent().unwrap().join(name);
    let csv = rows::write(&rows::community(seed, 20).persons, &file);
    site.json(["import", "person", csv.to_str().unwrap(), "--as", "dengji"]);
}

struct Pair {
    _base: tempfile::TempDir,
    district: Running,
    community: Running,
}

fn pair() -> Pair {
    let base = tempfile::tempdir().unwrap();
    let district = Site::root(base.path(), "jiangjin", "district").start();
    let community = Site::join(base.path(), &district, "jinfu", "community");
    community.enrol("dengji", "clerk", None);
    let community = community.start();
    converge(&community, &district);
    Pair {
        _base: base,
        district,
        community,
    }
}

#[test]
fn a_child_says_what_its_parent_lacks_since_when_and_when_it_tries_again() {
    let Pair {
        _base,
        district,
        community,
    } = pair();
    until("nothing is behind", || {
        lacks(&community, "jiangjin") == Some(0)
    });
    let parent = of(&community, "jiangjin");
    assert_eq!(
        (&parent["relation"], &parent["connected"]),
        (&json!("parent"), &json!(true))
    );
    until("the bytes of the session are told", || {
        let parent = of(&community, "jiangjin");
        parent["sent"].as_u64() > Some(0) && parent["received"].as_u64() > Some(0)
    });

    let above = district.site.clone();
    district.stop();
    let before = clock().0;
    import(&community.site, "away.csv", 3);
    until("the retry is announced", || {
        let parent = of(&community, "jiangjin");
        parent["next_try"].as_u64() > Some(before) && parent["connected"] == false
    });
    let parent = of(&community, "jiangjin");
    assert!(parent["last_error"].is_string(), "{parent}");
    let behind = parent["lacks"].as_u64().unwrap();
    assert!(behind > 20, "20 rows and what signs them: {parent}");
    let since = parent["lacks_since"].as_u64().unwrap();
    assert!((before..=clock().0).contains(&since), "{parent}");
    let ledgers = parent["ledgers"].as_array().unwrap();
    let person = ledgers.iter().find(|l| l["kind"] == "person").unwrap();
    assert_eq!(
        (&person["way"], &person["cosigned"]),
        (&json!("to"), &json!(0))
    );
    assert_eq!(person["behind"], person["size"]);
    assert!(person["behind"].as_u64() > Some(20));
    let metrics = community.http.get("/metrics", None).text();
    let line = format!(
        "fangzhi_sync_behind_entries{{peer=\"jiangjin\",way=\"to\",kind=\"person\"}} {}\n",
        person["behind"]
    );
    assert!(metrics.contains(&line), "{line}");
    tests::prometheus::judged(&metrics);
    let shown = community.site.run(["sync", "status"]).expect_code(0);
    for word in ["对端缺", "未连接", "下次重试", "最近错误"] {
        assert!(shown.printed().contains(word), "{}", shown.printed());
    }

    // The same from what lies on the disk: of the node at rest, and started again.
    let site = community.site.clone();
    community.stop();
    assert_eq!(peer(&sync(&site), "jiangjin")["lacks"], behind);
    let community = site.start();
    assert_eq!(lacks(&community, "jiangjin"), Some(behind));

    let district = above.start();
    converge(&community, &district);
    until("nothing is behind again", || {
        let parent = of(&community, "jiangjin");
        parent["lacks"] == 0 && parent["lacks_since"].is_null() && parent["next_try"].is_null()
    });
}

#[test]
fn a_parent_says_what_an_offline_child_lacks_and_which_versions_it_runs() {
    let Pair {
        _base,
        district,
        community,
    } = pair();
    until("the child has what is the parent's", || {
        lacks(&district, "jinfu") == Some(0)
    });
    let child = of(&district, "jinfu");
    assert_eq!(child["relation"], "child");
    let versions = child["versions"].as_array().unwrap();
    let seen: Vec<_> = versions
        .iter()
        .map(|v| (v["what"].as_str().unwrap(), v["compared"].as_str().unwrap()))
        .collect();
    assert_eq!(
        seen,
        [
            ("schemas", "same"),
            ("policies", "same"),
            ("program", "same")
        ]
    );
    assert_eq!(versions[2]["version"], env!("CARGO_PKG_VERSION"));

    let below = community.site.clone();
    community.stop();
    let before = clock().0;
    district.site.enrol("shenji", "auditor", None);
    let child = of(&district, "jinfu");
    let behind = child["lacks"].as_u64().unwrap();
    assert!(behind > 0, "{child}");
    assert!(child["lacks_since"].as_u64() >= Some(before), "{child}");

    let site = district.site.clone();
    district.stop();
    let district = site.start();
    assert_eq!(lacks(&district, "jinfu"), Some(behind), "after a restart");

    let _community = below.start();
    until("the child has it all", || {
        lacks(&district, "jinfu") == Some(0)
    });
}
