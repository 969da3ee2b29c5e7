//! A lost node's recovery is fetched live from its parent: with a leave that the parent's officer
//! made, by one machine, once; cut off, it goes on or begins anew; and a grant that was amended just
//! before the loss is worked through again.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::path::{Path, PathBuf};

use record::authority::{History, Level, Role};
use record::entry::{Entry, GrantOperation};
use record::id::{Origin, UnixMillis};
use record::plan::ShareHolder;
use registry::config::KeyCustody;
use registry::grant::GrantRequest;
use registry::grant::amend::AmendRequest;
use registry::grant::proof::verify_grants;
use registry::keys::Opener;
use registry::plan::approve::plan_id;
use registry::plan::request::PlanRequest;
use registry::read::ReadRequest;
use registry::recovery::giving::{LEAVE_MILLIS, RecoveryLeave};
use registry::recovery::rebuild::{NewPlace, rebuild};
use registry::recovery::taking::Taking;
use registry::replicate::NewInvitation;
use registry::session::Session;
use serde_json::{Value, json};
use store::{Snapshot, Store};
use sync::Secret;
use sync::recovery::{RecoveryAsk, RecoveryPiece};
use tests::realm::proxy::{Fate, Proxy};
use tests::realm::{
    NOW, PASSPHRASE, REALM, Site, division, kind, origin, purpose, reading, replicate, rows, settle,
};
use tests::trio::converge;
use tests::{Running, until};

/// A district and a community under it whose root is shared, two of two.
struct Pair {
    base: tempfile::TempDir,
    district: Site,
    community: Site,
    second: Session,
    clerk: Session,
}

impl Pair {
    fn new() -> Self {
        let base = tempfile::tempdir().unwrap();
        let district = Site::root(base.path(), REALM, "jiangjin", NOW);
        let community = Site::join(&district, base.path(), "jinfu", Level::Community, NOW);
        let second = community.enrol("yi", Role::SecurityOfficer, None, NOW);
        let clerk = community.operator(Role::Clerk, None, NOW);
        Self {
            base,
            district,
            community,
            second,
            clerk,
        }
    }

    fn settle(&self) {
        settle(&[(&self.community, &self.district)], NOW);
    }

    fn run(&self, request: &PlanRequest) {
        let (registry, officer) = (&self.community.registry, &self.community.officer);
        let plan = registry.plan(officer, request, NOW).unwrap();
        let id = plan_id(&plan.id).unwrap();
        registry.approve(&self.second, &id, true, NOW).unwrap();
        registry.run_plan(officer, &id, NOW).unwrap();
    }

    fn share(&self) -> Vec<String> {
        let officers = [&self.community.officer, &self.second];
        let holders = officers.map(|officer| ShareHolder {
            organization: division("jinfu"),
            operator: officer.operator,
            key: None,
        });
        self.run(&PlanRequest::Share {
            threshold: 2,
            holders: holders.into(),
        });
        let registry = &self.community.registry;
        let nonce = registry.share_status().unwrap().ceremony.unwrap().ceremony;
        let shares = officers.map(|officer| registry.take_share(officer, &nonce).unwrap());
        for (officer, share) in officers.into_iter().zip(&shares) {
            registry.confirm_share(officer, &nonce, share, NOW).unwrap();
        }
        shares.map(|share| share.to_string()).into()
    }

    fn leave(&self) -> RecoveryLeave {
        self.leave_for("jinfu").unwrap()
    }

    fn leave_for(&self, name: &str) -> registry::Result<RecoveryLeave> {
        let address = self.district.registry.config().listen.clone();
        let (registry, officer) = (&self.district.registry, &self.district.officer);
        registry.allow_recovery(officer, &division(name), address, NOW)
    }

    fn ask(&self, ask: &RecoveryAsk, machine: u8) -> registry::Result<RecoveryPiece> {
        let registry = &self.district.registry;
        registry.recovery_piece(ask, &[machine; 32], NOW)
    }
}

fn first(secret: &str, of: &str) -> RecoveryAsk {
    RecoveryAsk {
        division: division(of),
        secret: Secret::new(registry::config::key_from_hex(secret).unwrap()),
        file: None,
        offset: 0,
    }
}

fn place() -> NewPlace {
    NewPlace {
        http: None,
        listen: None,
        custody: KeyCustody::File,
    }
}

#[track_caller]
fn refused<T>(result: registry::Result<T>, words: &str) {
    match result {
        Ok(_) => panic!("not refused: {words}"),
        Err(error) => assert!(error.to_string().contains(words), "{error}"),
    }
}

fn partial(dir: &Path, name: &str) -> PathBuf {
    let mut folder = dir.as_os_str().to_owned();
    folder.push(".recovering");
    PathBuf::from(folder).join(name)
}

/// Fetches to the end; how many pieces came.
fn fetch(pair: &Pair, taking: &mut Taking, machine: u8) -> u64 {
    let mut pieces = 0;
    while !taking.is_whole() {
        let piece = pair.ask(&taking.ask(), machine).unwrap();
        taking.take(&piece).unwrap();
        pieces += 1;
        assert!(pieces < 100);
    }
    // The parent is told that it is whole.
    pair.ask(&taking.ask(), machine).unwrap();
    pieces
}

#[test]
fn a_leave_is_for_one_node_one_machine_and_one_fetch() {
    let pair = Pair::new();
    // Without shares there is nothing to be fetched, and no leave is made.
    refused(pair.leave_for("jinfu"), "never shared");
    let shares = pair.share();
    pair.settle();
    let wrong = "wrong, used or expired";
    // No leave yet; a wrong secret; that of an invitation; one of another node.
    refused(pair.ask(&first(&"ab".repeat(32), "jinfu"), 1), wrong);
    let leave = pair.leave();
    assert!(!format!("{leave:?}").contains(&leave.secret));
    refused(pair.ask(&first(&"ab".repeat(32), "jinfu"), 1), wrong);
    refused(pair.ask(&first(&leave.secret, "jiangjin"), 1), wrong);
    let invitation = pair
        .district
        .registry
        .invite(
            &pair.district.officer,
            &NewInvitation {
                division: division("degan"),
                name: "degan".into(),
                level: Level::Community,
                codes: vec![],
                address: pair.district.registry.config().listen.clone(),
            },
            NOW,
        )
        .unwrap();
    for of in ["jinfu", "degan"] {
        refused(pair.ask(&first(&invitation.secret, of), 1), wrong);
    }
    // Over its time.
    let late = UnixMillis(NOW.0 + LEAVE_MILLIS + 1);
    let ask = first(&leave.secret, "jinfu");
    refused(
        pair.district.registry.recovery_piece(&ask, &[1; 32], late),
        wrong,
    );
    // A later leave makes the one before void.
    let later = pair.leave();
    refused(pair.ask(&ask, 1), wrong);

    let dir = pair.base.path().join("new");
    let mut taking = Taking::begin(&dir, later.clone(), NOW).unwrap();
    let piece = pair.ask(&taking.ask(), 1).unwrap();
    // From then on for this machine alone; the other one raises an alarm.
    assert!(pair.district.registry.alarms().unwrap().is_empty());
    refused(pair.ask(&taking.ask(), 2), wrong);
    let alarms = pair.district.registry.alarms().unwrap();
    assert!(alarms.iter().any(|alarm| alarm.code == "recovery-leave"));
    // Until the officer makes another leave, as at the end of this test.
    refused(taking.file(), "not whole");
    taking.take(&piece).unwrap();
    fetch(&pair, &mut taking, 1);
    // Spent, for this machine, too; and nothing of it lies about at the parent.
    refused(pair.ask(&taking.ask(), 1), wrong);
    refused(pair.ask(&first(&later.secret, "jinfu"), 1), wrong);
    assert!(!pair.district.dir.join("recovery-given/jinfu").exists());
    let file = taking.file().unwrap();
    rebuild(&dir, &file, &shares, place(), &Opener::File, NOW).unwrap();
    taking.done().unwrap();
    assert!(!partial(&dir, "key").exists());
    refused(Taking::begin(&dir, later, NOW).map(drop), "a node in");
    pair.leave();
    assert!(pair.district.registry.alarms().unwrap().is_empty());
    // An officer alone makes a leave, and a clerk of the district none.
    let clerk = pair.district.operator(Role::DistrictOfficer, None, NOW);
    let denied = pair.district.registry.allow_recovery(
        &clerk,
        &division("jinfu"),
        "127.0.0.1:1".into(),
        NOW,
    );
    assert!(matches!(
        denied,
        Err(registry::RegistryError::Denied { .. })
    ));
}

#[test]
fn a_fetch_that_was_cut_off_goes_on_and_nothing_half_written_is_taken_for_whole() {
    let pair = Pair::new();
    let people = rows("person", 1, 5_000, 1);
    pair.community.import(&pair.clerk, "person", &people, NOW);
    let shares = pair.share();
    pair.settle();
    let leave = pair.leave();
    let dir = pair.base.path().join("new");
    let take_one = |taking: &mut Taking| {
        let piece = pair.ask(&taking.ask(), 1).unwrap();
        taking.take(&piece).unwrap();
    };
    let mut taking = Taking::begin(&dir, leave.clone(), NOW).unwrap();
    let seed = taking.transport_seed();
    take_one(&mut taking);
    let (have, total) = taking.progress();
    let total = total.unwrap();
    assert!(
        total > 2 * have,
        "{have} of {total}: too short for this test"
    );
    drop(taking);

    // The machine is switched off, and on: the same key, from where it was.
    let mut taking = Taking::begin(&dir, leave.clone(), NOW).unwrap();
    assert_eq!(
        (*taking.transport_seed(), taking.progress().0),
        (*seed, have)
    );
    // The parent is restarted meanwhile, and gives the same bytes.
    take_one(&mut taking);
    assert!(taking.progress().0 > have);
    drop(taking);
    // A torn write: a part of the last piece only.
    let part = partial(&dir, "part");
    let bytes = std::fs::read(&part).unwrap();
    std::fs::write(&part, &bytes[..bytes.len() - 1_000]).unwrap();
    let mut taking = Taking::begin(&dir, leave.clone(), NOW).unwrap();
    refused(taking.file(), "not whole");
    // A piece that nobody asked for.
    let mut stray = pair.ask(&taking.ask(), 1).unwrap();
    stray.offset += 1;
    refused(taking.take(&stray), "another piece");
    drop(taking);
    // One byte of what arrived is another: it is seen at the end, and all is fetched again.
    let mut flipped = std::fs::read(&part).unwrap();
    flipped[1_000] ^= 1;
    std::fs::write(&part, &flipped).unwrap();
    let mut taking = Taking::begin(&dir, leave.clone(), NOW).unwrap();
    let pieces = total.div_ceil(sync::recovery::PIECE_BYTES_MAX as u64);
    let fetched = fetch(&pair, &mut taking, 1);
    assert!(fetched > pieces, "{fetched} pieces of {pieces}");
    // Whole, and not rebuilt yet: the next run needs nobody.
    drop(taking);
    let mut last = std::fs::read(&part).unwrap();
    let taking = Taking::begin(&dir, leave.clone(), NOW).unwrap();
    assert!(taking.is_whole());
    let file = taking.file().unwrap();
    drop(taking);
    // Longer than it may be, or damaged since: no recovery file.
    last.push(b' ');
    std::fs::write(&part, &last).unwrap();
    assert!(!Taking::begin(&dir, leave.clone(), NOW).unwrap().is_whole());
    // Another leave begins anew, under another key.
    let other = Taking::begin(&dir, pair.leave(), NOW).unwrap();
    assert_ne!(*other.transport_seed(), *seed);
    assert_eq!(other.progress(), (0, None));
    assert_eq!(
        rebuild(&dir, &file, &shares, place(), &Opener::File, NOW).unwrap(),
        file.chunks.len()
    );
}

#[test]
fn a_recovery_that_moved_on_is_given_anew_and_none_lies_about_once_its_leave_is_over() {
    let pair = Pair::new();
    pair.share();
    pair.settle();
    let leave = pair.leave();
    let given = pair.district.dir.join("recovery-given/jinfu");
    let piece = pair.ask(&first(&leave.secret, "jinfu"), 1).unwrap();
    let go_on = |file| RecoveryAsk {
        file: Some(file),
        offset: 10,
        ..first(&leave.secret, "jinfu")
    };
    let tend = |now| pair.district.registry.tend_leaves(now).unwrap();
    tend(NOW);
    let next = pair.ask(&go_on(piece.file), 1).unwrap();
    assert_eq!((next.file, next.offset), (piece.file, 10));
    // Keys and secrets that are made or destroyed meanwhile: the file of before is gone.
    let people = rows("person", 1, 20, 1);
    pair.community.import(&pair.clerk, "person", &people, NOW);
    pair.settle();
    tend(NOW);
    assert!(!given.exists());
    let next = pair.ask(&go_on(piece.file), 1).unwrap();
    assert!(next.file != piece.file && next.offset == 0 && given.exists());
    tend(UnixMillis(NOW.0 + LEAVE_MILLIS + 1));
    assert!(!given.exists());
}

fn by(site: &tests::Site, officer: &str, args: &[&str]) -> Value {
    site.json(args.iter().copied().chain(["--as", officer]))
}

/// A ceremony with an officer here and one of the district, by the command line; their files.
fn share_with_the_district(base: &Path, node: &Running, district: &Running) -> [PathBuf; 2] {
    let (site, above) = (&node.site, &district.site);
    by(
        above,
        "anquan",
        &["keys", "share", "ready", "--for", "jinfu"],
    );
    let id = |site: &tests::Site, name: &str| {
        let all = by(site, "anquan", &["operator", "list"]);
        let one = all["operators"].as_array().unwrap().iter();
        let one = one.clone().find(|o| o["login"] == "anquan").unwrap();
        format!("{name}:{}", one["operator"].as_str().unwrap())
    };
    let holders = [id(site, "jinfu"), id(above, "jiangjin")];
    let plan = {
        let mut plan = Value::Null;
        until("the officer's key came down", || {
            let done = site.run([
                "keys",
                "plan",
                "share",
                "--threshold",
                "2",
                "--holder",
                &holders[0],
                "--holder",
                &holders[1],
                "--as",
                "anquan",
                "--json",
            ]);
            plan = serde_json::from_str(&done.stdout).unwrap_or_default();
            done.code == 0
        });
        plan["id"].as_str().unwrap().to_owned()
    };
    by(site, "yi", &["keys", "approve", &plan]);
    by(site, "anquan", &["keys", "run", &plan]);
    let status = by(site, "yi", &["keys", "share", "status"]);
    let nonce = status["ceremony"]["ceremony"].as_str().unwrap();
    // The sealed share goes up on a stick, as where no line connects the two; the rest by itself.
    let stick = base.join("sealed.json");
    let stick = stick.to_str().unwrap();
    by(site, "yi", &["keys", "share", "export", "--out", stick]);
    let brought = by(above, "anquan", &["keys", "share", "bring", stick]);
    assert_eq!(
        brought["taken"].as_u64().unwrap() + brought["known"].as_u64().unwrap(),
        1
    );
    let held = by(above, "anquan", &["keys", "share", "status"])["held"].clone();
    assert_eq!(
        (&held[0]["ceremony"], &held[0]["state"]),
        (&json!(nonce), &json!("waiting"))
    );
    let files = [(site, "own.share"), (above, "above.share")].map(|(site, name)| {
        let file = base.join(name);
        let path = file.to_str().unwrap();
        let take = ["keys", "share", "take", "--ceremony", nonce, "--out", path];
        by(site, "anquan", &take);
        let confirm = [
            "keys",
            "share",
            "confirm",
            "--ceremony",
            nonce,
            "--share",
            path,
        ];
        by(site, "anquan", &confirm);
        file
    });
    until("the officer's word came down", || {
        by(site, "yi", &["keys", "share", "status"])["in_force"]["ceremony"] == nonce
    });
    files
}

#[test]
fn a_station_that_burned_is_fetched_from_its_parent_over_a_bad_line_and_registers_again() {
    let base = tempfile::tempdir().unwrap();
    let base = base.path();
    let district = tests::Site::root(base, "jiangjin", "district").start();
    let site = tests::Site::join(base, &district, "jinfu", "community");
    site.enrol("dengji", "clerk", None);
    site.enrol("yi", "security-officer", None);
    let community = site.start();
    let sample = tests::rows::community(1, 60);
    let import = |node: &Running, from: usize, to: usize| {
        let tables = sample.tables();
        let (_, table) = tables.iter().find(|(kind, _)| *kind == "person").unwrap();
        let token = node.http.login("dengji");
        let mut chunk = tests::rows::chunk("person", table, from..to);
        chunk["source"] = format!("{from:064x}").into();
        let report = node.http.post("/api/v1/import", Some(&token), &chunk);
        assert_eq!(report.expect_status(200).json()["accepted"], to - from);
    };
    import(&community, 0, 20);
    let shares = share_with_the_district(base, &community, &district);
    import(&community, 20, 40);
    converge(&community, &district);
    let before = tests::site::records_in(&community.http.status(), "person");
    community.kill_9();
    std::fs::remove_dir_all(&site.dir).unwrap();
    std::fs::remove_dir_all(base.join("jinfu.signed")).unwrap();

    // The line to the parent breaks twice, the second time in the middle of the file.
    let line = Proxy::start(&district.listen, |number| match number {
        0 => Fate::Refused,
        1 => Fate::CutAfter(20_000),
        _ => Fate::Whole,
    });
    let leave = base.join("leave.json");
    let leave = leave.to_str().unwrap();
    let make = [
        "recover",
        "leave",
        "--division",
        "jinfu",
        "--address",
        &district.listen,
        "--out",
        leave,
    ];
    by(&district.site, "anquan", &make);
    let [own, above] = shares.each_ref().map(|share| share.to_str().unwrap());
    let rebuild = |with: &[&str]| {
        let args = ["recover", "rebuild", "--share", own, "--share", above];
        site.run(args.iter().chain(with).copied())
    };
    // An address alone is not enough.
    let bare = rebuild(&["--from", &line.address]).expect_code(2);
    assert!(bare.printed().contains("--leave"), "{}", bare.printed());
    rebuild(&["--from", &line.address, "--leave", leave]).expect_code(0);
    assert!(line.connections() >= 3);
    // Used: whoever finds the file on the stick gets nothing with it.
    let thief = tests::Site::at(&base.join("thief"));
    let args = ["recover", "rebuild", "--share", own, "--share", above];
    let from = ["--from", &district.listen, "--leave", leave];
    let done = thief.run(args.iter().chain(&from).copied());
    assert_ne!(done.code, 0);
    assert!(done.printed().contains("used"), "{}", done.printed());
    assert!(!thief.dir.join("node.json").exists());

    let community = returned(&site, before);
    import(&community, 40, 50);
    converge(&community, &district);
    community.stop();
    site.verified();
    district.stop();
}

/// The fields that a department's rows have, and how many rows there are.
fn fields_at(department: &Running) -> (usize, bool) {
    let read = ["read", "person", "--as", "jingban", "--purpose", "welfare"];
    let answer = department
        .site
        .json(read.into_iter().chain(["--limit", "100"]));
    let rows = answer["value"]["rows"].as_array().unwrap();
    let sex = rows.iter().any(|row| row["fields"].get("sex").is_some());
    (rows.len(), sex)
}

/// The version of the policies that a node runs, as it says itself.
fn policies_at(site: &tests::Site) -> Option<String> {
    let status = site.json(["publish", "list"]);
    let nodes = status["nodes"].as_array().unwrap();
    let node = nodes.iter().find(|node| node["division"] == "jinfu")?;
    let mut versions = node["versions"].as_array().unwrap().iter();
    let policies = versions.find(|version| version["what"] == "policies")?;
    Some(policies["version"].as_str().unwrap().to_owned())
}

/// Publishes policies under which a clerk reads for statistics, too.
fn publish_statistics(base: &Path, district: &Running) {
    let (above, folder) = (&district.site, base.join("policies"));
    let path = folder.to_str().unwrap();
    by(
        above,
        "anquan",
        &["publish", "export", "policies", "--to", path],
    );
    let rules = folder.join("reading.cedar");
    let text = std::fs::read_to_string(&rules).unwrap();
    let more = r#"
@id("clerk-reads-for-statistics")
@ask("本社区登记员 / a clerk of this community")
permit (principal, action in [Action::"read", Action::"search", Action::"list"], resource)
when {
  principal.role == Role::"clerk" && resource.division == principal.organization &&
  resource.sensitivity <= 2 && context.purpose == Purpose::"statistics"
};
"#;
    std::fs::write(&rules, text + more).unwrap();
    let planned = by(
        above,
        "anquan",
        &["publish", "plan", "policies", "--from", path],
    );
    let plan = planned["plan"]["id"].as_str().unwrap();
    by(above, "fu", &["keys", "approve", plan]);
    by(above, "anquan", &["keys", "run", plan]);
}

#[test]
fn a_rebuilt_station_goes_on_with_an_amended_grant_and_with_the_policies_of_its_realm() {
    let base = tempfile::tempdir().unwrap();
    let base = base.path();
    let trio = tests::Trio::start(base, "G01", &[]);
    let tests::Trio {
        district,
        community,
        department,
    } = trio;
    district.site.enrol("fu", "security-officer", None);
    let site = community.site.clone();
    site.enrol("yi", "security-officer", None);
    let sample = tests::rows::community(1, 30);
    let token = community.http.login("dengji");
    let chunk = tests::rows::chunk("person", &sample.persons, 0..20);
    let report = community.http.post("/api/v1/import", Some(&token), &chunk);
    assert_eq!(report.expect_status(200).json()["accepted"], 20);
    let shares = share_with_the_district(base, &community, &district);
    let trio = tests::Trio {
        district,
        community,
        department,
    };
    trio.grant("name,sex", &[]);
    let tests::Trio {
        district,
        community,
        department,
    } = trio;
    until("every row is at the department", || {
        fields_at(&department) == (20, true)
    });
    let statistics = |site: &tests::Site| {
        let read = [
            "read",
            "person",
            "--as",
            "dengji",
            "--purpose",
            "statistics",
        ];
        site.run(read.into_iter().chain(["--limit", "1"])).code
    };
    assert_eq!(statistics(&site), 4);
    publish_statistics(base, &district);
    until("the community runs the policies of the district", || {
        policies_at(&site).as_deref() == Some("2")
    });
    assert_eq!(statistics(&site), 0);

    // Narrowed, and lost as soon as the parent has heard of it.
    converge(&community, &district);
    let granted = site.json(["grant", "list"]);
    let grant = granted["grants"][0]["id"].as_str().unwrap().to_owned();
    let amend = ["grant", "amend", &grant, "--fields", "name"];
    let planned = by(&site, "anquan", &amend);
    let plan = planned["plan"]["id"].as_str().unwrap();
    by(&site, "yi", &["keys", "approve", plan]);
    by(&site, "anquan", &["keys", "run", plan]);
    let size = |node: &Running| {
        let status = node.http.status();
        let ledgers = status["ledgers"].as_array().unwrap().iter();
        let of = |l: &&Value| l["origin"].as_str().unwrap().ends_with("/jinfu/authority");
        ledgers.clone().find(of).unwrap()["size"].as_u64().unwrap()
    };
    let stated = size(&community);
    until("the parent has the amendment", || size(&district) >= stated);
    community.kill_9();
    std::fs::remove_dir_all(&site.dir).unwrap();
    std::fs::remove_dir_all(base.join("jinfu.signed")).unwrap();

    let file = base.join("jinfu.recovery");
    let file = file.to_str().unwrap();
    let address = district.listen.clone();
    let export = [
        "recover",
        "export",
        "--division",
        "jinfu",
        "--address",
        &address,
    ];
    let to = ["--out", file];
    by(&district.site, "anquan", &[export.as_slice(), &to].concat());
    let [own, above] = shares.each_ref().map(|share| share.to_str().unwrap());
    let args = ["recover", "rebuild", "--share", own, "--share", above];
    site.run(args.into_iter().chain(["--from", file]))
        .expect_code(0);
    let community = returned(&site, 20);
    // The published policies hold, without anybody's word.
    until("it runs the policies of its realm", || {
        policies_at(&site).as_deref() == Some("2")
    });
    assert_eq!(statistics(&site), 0);
    // The grant is worked through under its new terms, the old parcels are dropped.
    until("the department has every row under the new terms", || {
        fields_at(&department) == (20, false)
    });
    // And what is registered from then on follows.
    let token = community.http.login("dengji");
    let mut chunk = tests::rows::chunk("person", &sample.persons, 20..25);
    chunk["source"] = "ab".repeat(32).into();
    let report = community.http.post("/api/v1/import", Some(&token), &chunk);
    assert_eq!(report.expect_status(200).json()["accepted"], 5);
    until("new rows reach the department", || {
        fields_at(&department) == (25, false)
    });
    converge(&community, &district);
    converge(&department, &district);
    for node in [community, department, district] {
        let site = node.site.clone();
        node.stop();
        site.verified();
    }
}

/// Starts a rebuilt station, whose officers know their passphrases still, and waits until it has its
/// ledgers again, with so many persons.
fn returned(site: &tests::Site, persons: u64) -> Running {
    for login in ["anquan", "yi", "dengji"] {
        let pass = site.dir.join(format!("operators/{login}.pass"));
        std::fs::write(pass, tests::site::PASSPHRASE).unwrap();
    }
    let community = site.start();
    until("the ledgers are back", || {
        let status = community.http.status();
        status["halted"] == json!({}) && tests::site::records_in(&status, "person") == persons
    });
    community
}

/// What a department reads of the community by grant: each person's fields.
fn read(department: &Site, reader: &Session) -> Vec<Vec<String>> {
    let request = ReadRequest {
        limit: Some(200),
        ..reading("person", "welfare")
    };
    let answer = department.registry.read(reader, &request, NOW).unwrap();
    let rows = answer.value().rows.iter();
    let mut names: Vec<Vec<String>> = rows
        .map(|row| row.fields.keys().cloned().collect())
        .collect();
    names.sort();
    names
}

/// How many entries of a kind a grant's ledger has.
fn steps(site: &Site, ledger: &Origin, of: GrantOperation) -> usize {
    let store = Snapshot::open(&site.dir).unwrap();
    let rows = store.scan(ledger.as_str(), "entry", b"", usize::MAX);
    let entries = rows.unwrap().into_iter();
    entries
        .filter(|(_, bytes)| {
            matches!(Entry::decode(bytes).unwrap(), Entry::Grant(entry) if entry.operation == of)
        })
        .count()
}

#[test]
fn a_grant_amended_just_before_the_node_was_lost_is_worked_through_after_its_recovery() {
    let pair = Pair::new();
    let department = Site::join(
        &pair.district,
        pair.base.path(),
        "minzheng",
        Level::Department,
        NOW,
    );
    let reader = department.operator(Role::DepartmentOfficer, None, NOW);
    let all = |community: &Site| {
        settle(
            &[(community, &pair.district), (&department, &pair.district)],
            NOW,
        );
    };
    let mut persons = rows("person", 7, 24, 1);
    for (at, row) in persons.iter_mut().enumerate() {
        row.insert("phone".into(), format!("154{at:08}"));
    }
    pair.community.import(&pair.clerk, "person", &persons, NOW);
    let shares = pair.share();
    all(&pair.community);
    let grant = pair
        .community
        .registry
        .grant(
            &pair.community.officer,
            &GrantRequest {
                kind: kind("person"),
                holder: division("minzheng"),
                fields: vec!["name".into(), "phone".into()],
                rows: Default::default(),
                purpose: purpose("welfare"),
                basis: "社会救助暂行办法".into(),
                assessment: "PIA-2026-001".into(),
                days: 90,
                history: History::Since,
            },
            NOW,
        )
        .unwrap();
    all(&pair.community);
    let given = read(&department, &reader);
    assert_eq!(given.len(), persons.len());
    assert!(
        given
            .iter()
            .all(|fields| fields.contains(&"phone".to_owned())),
        "{given:?}"
    );
    let ledger = origin("jinfu", "person").grant(&grant);
    assert_eq!(steps(&department, &ledger, GrantOperation::Retract), 0);

    // A new epoch: until the old bodies are sealed anew, an amended grant is not worked through.
    pair.run(&PlanRequest::RotateEpoch {
        kind: kind("person"),
        compromised: false,
    });
    pair.run(&PlanRequest::AmendGrant {
        grant,
        to: AmendRequest {
            fields: Some(vec!["name".into()]),
            ..AmendRequest::default()
        },
    });
    all(&pair.community);
    // At first, of the new epoch, under the new terms.
    assert_eq!(steps(&department, &ledger, GrantOperation::Keys), 3);
    assert_eq!(steps(&department, &ledger, GrantOperation::Retract), 0);

    // Lost before a record was looked at under the new terms.
    let address = pair.district.registry.config().listen.clone();
    let file = pair
        .district
        .registry
        .export_recovery(&pair.district.officer, &division("jinfu"), address)
        .unwrap();
    let dir = pair.base.path().join("new");
    rebuild(&dir, &file, &shares, place(), &Opener::File, NOW).unwrap();
    let registry = registry::Registry::open(&dir, &Opener::File, NOW).unwrap();
    let mut community = Site {
        dir,
        registry: registry.into(),
        officer: pair
            .district
            .registry
            .login("anquan", PASSPHRASE, NOW)
            .unwrap(),
    };
    for _ in 0..5 {
        replicate(&community, &pair.district, NOW);
    }
    assert!(community.registry.status().unwrap().halted.is_empty());
    community.officer = community.registry.login("anquan", PASSPHRASE, NOW).unwrap();
    community.registry.tend_grants(NOW).unwrap();
    while community.registry.reseal_step(NOW).unwrap() {}
    for _ in 0..2 {
        all(&community);
        for site in [&community, &department] {
            site.registry.tend_grants(NOW).unwrap();
            site.registry.go_on_destroying(NOW);
        }
    }
    all(&community);
    let narrowed = read(&department, &reader);
    assert_eq!(narrowed.len(), persons.len());
    assert!(
        narrowed
            .iter()
            .all(|fields| !fields.contains(&"phone".to_owned())),
        "{narrowed:?}"
    );
    // Each row was taken back with its phone, and given again without.
    assert_eq!(
        steps(&department, &ledger, GrantOperation::Retract),
        persons.len()
    );
    let proof = verify_grants(&department.dir, Some(&grant)).unwrap();
    assert!(proof[0].ok, "{:?}", proof[0].findings);
    assert_eq!((proof[0].records, proof[0].unvouched), (24, 0));
    let lines = community.registry.grants(NOW).unwrap();
    let line = lines.iter().find(|line| line.id == grant).unwrap();
    assert!(line.current);
    // What is registered from then on comes under the new terms, once.
    let clerk = community.registry.login("clerk", PASSPHRASE, NOW).unwrap();
    community.import(&clerk, "person", &rows("person", 8, 6, 2), NOW);
    all(&community);
    assert!(read(&department, &reader).len() > narrowed.len());
    for site in [&community, &department, &pair.district] {
        let report = registry::verify::verify(&site.dir).unwrap();
        assert!(report.ok, "{:?}", report.findings);
    }
}
