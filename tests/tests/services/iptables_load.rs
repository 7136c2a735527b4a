//! The scripts of the iptables backend in the kernel, by both kinds of `iptables`.

use std::collections::BTreeMap;

use causeway_model::IpFamily;
use causeway_ruleset::iptables::{ChainMirror, Script, cleanup};
use causeway_ruleset::plan::{Delta, Plan};
use causeway_ruleset::testing::{facts, random_history, service, services};
use causeway_tests::{Ns, finish};

const FAMILIES: [IpFamily; 2] = [IpFamily::V4, IpFamily::V6];
const KINDS: [Kind; 2] = [Kind::Nft, Kind::Legacy];
const HISTORIES: u64 = 2;

/// Which `iptables`.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Nft,
    Legacy,
}

impl Kind {
    fn program(self, family: IpFamily, what: &str) -> String {
        let family = match family {
            IpFamily::V4 => "iptables",
            IpFamily::V6 => "ip6tables",
        };
        match self {
            Self::Nft => format!("{family}-nft-{what}"),
            Self::Legacy => format!("{family}-legacy-{what}"),
        }
    }

    fn restore(self, ns: &Ns, scripts: &[Script]) {
        for script in scripts.iter().filter(|script| !script.text.is_empty()) {
            let mut command = ns.command(self.program(script.family, "restore"));
            command.args(["--noflush", "-w"]);
            let done = finish(command, script.text.as_bytes());
            assert!(done.status.success(), "{self:?}: {}\n{}", done.describe(), script.text);
        }
    }

    /// Both families as they are, without remarks: those have the time.
    fn save(self, ns: &Ns) -> [String; 2] {
        FAMILIES.map(|family| {
            let text = ns.sh(&self.program(family, "save"));
            let lines = text.lines().filter(|line| !line.starts_with('#'));
            lines.fold(String::new(), |text, line| text + line + "\n")
        })
    }

    fn full(self, ns: &Ns, plan: &Plan) -> ChainMirror {
        let saved = self.save(ns);
        let (mirror, scripts) = ChainMirror::full(plan, &with_families(&saved));
        self.restore(ns, &scripts);
        mirror
    }
}

fn with_families(saved: &[String; 2]) -> [(IpFamily, &str); 2] {
    [(IpFamily::V4, &saved[0]), (IpFamily::V6, &saved[1])]
}

type Rules<'a> = BTreeMap<(&'a str, &'a str), Vec<&'a str>>;

/// Rules in order by table and chain: the kinds differ in the order of chains.
fn rules(saved: &str) -> Rules<'_> {
    let mut rules = BTreeMap::<_, Vec<_>>::new();
    let mut table = "";
    for line in saved.lines() {
        if let Some(name) = line.strip_prefix('*') {
            table = name;
        } else if let Some(rest) = line.strip_prefix(':') {
            rules.entry((table, rest.split(' ').next().unwrap_or(rest))).or_default();
        } else if let Some((chain, rule)) =
            line.strip_prefix("-A ").and_then(|line| line.split_once(' '))
        {
            rules.entry((table, chain)).or_default().push(rule);
        }
    }
    rules
}

#[track_caller]
fn same(left: &Rules<'_>, right: &Rules<'_>, place: &str) {
    for chain in left.keys().chain(right.keys()) {
        assert_eq!(left.get(chain), right.get(chain), "{place}: {chain:?}");
    }
}

/// What the kernel prints is what was written, and what changes leave is what a fresh start makes.
///
/// Rows: P21, P22, P23, P90
#[test]
fn i4_changes_leave_in_the_kernel_what_a_fresh_start_makes() {
    for kind in KINDS {
        for seed in 0..HISTORIES {
            let history = random_history(seed);
            let ns = Ns::new("changed");
            let mut mirror = kind.full(&ns, &Plan::new(history[0].plan.facts.clone()));
            for (number, step) in history.iter().enumerate() {
                kind.restore(&ns, &mirror.change(&step.plan, &step.delta));
                if number % 4 != 3 {
                    continue;
                }
                let fresh = Ns::new("fresh");
                let (_, scripts) = ChainMirror::full(&step.plan, &[]);
                kind.restore(&fresh, &scripts);
                let changed = kind.save(&ns);
                // Hosts save their rules when they stop and restore them when they start.
                for (family, text) in with_families(&changed) {
                    let restored = Script { family, text: text.to_owned() };
                    kind.restore(&ns, &[Script { text: flush_all(text), ..restored.clone() }]);
                    kind.restore(&ns, &[restored]);
                }
                assert_eq!(kind.save(&ns), changed, "{kind:?} {seed} {number}");
                let fresh = kind.save(&fresh);
                assert!(mirror.is_whole(&with_families(&changed)), "{kind:?} {seed} {number}");
                for ((changed, fresh), script) in changed.iter().zip(&fresh).zip(&scripts) {
                    let place = format!("{kind:?} {seed} {number}");
                    same(&rules(changed), &rules(fresh), &place);
                    let mut ours = rules(fresh);
                    ours.retain(|(_, chain), _| chain.starts_with("CW-"));
                    same(&ours, &rules(&script.text), &place);
                }
            }
        }
    }
}

/// Empties the chains of the kernel, which a saved ruleset does not mention as empty.
fn flush_all(saved: &str) -> String {
    let built_in = |line: &&str| line.starts_with(':') && !line.contains(" - ");
    saved.lines().fold(String::new(), |text, line| match line.strip_prefix(':') {
        Some(rest) if built_in(&line) => {
            text + "-F " + rest.split(' ').next().unwrap_or(rest) + "\n"
        }
        _ if line.starts_with('*') || line == "COMMIT" => text + line + "\n",
        _ => text,
    })
}

const FOREIGN: &str = "*nat\n:DOCKER - [0:0]\n:CW-LOGS - [0:0]\n-A PREROUTING -j DOCKER\n\
    -A OUTPUT ! -d 127.0.0.0/8 -m comment --comment \"never -j CW-SERVICES\" -j DOCKER\n\
    -A POSTROUTING -s 192.168.7.0/24 -j MASQUERADE\n-A DOCKER -p tcp -j RETURN\nCOMMIT\n\
    *filter\n:INPUT DROP [0:0]\n-A INPUT -i lo -j ACCEPT\n-A FORWARD -m mark --mark 0x1 -j ACCEPT\n\
    COMMIT\n*raw\n-A PREROUTING -p udp --dport 9 -j DROP\nCOMMIT\n\
    *mangle\n-A FORWARD -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu\nCOMMIT\n";

/// Repair after a foreign hand, and removal without a trace.
///
/// Rows: P93, P95, S-39
#[test]
fn a_full_start_repairs_and_cleanup_leaves_what_others_have() {
    for kind in KINDS {
        let history = random_history(3);
        let (old, plan) = (&history[4].plan, &history[11].plan);
        let ns = Ns::new("company");
        let foreign =
            FAMILIES.map(|family| Script { family, text: FOREIGN.replace("192.168.7.0/24", "") });
        let foreign = foreign.map(|script| match script.family {
            IpFamily::V4 => Script { text: FOREIGN.to_owned(), ..script },
            IpFamily::V6 => Script {
                text: FOREIGN
                    .replace("192.168.7.0/24", "fd00:7::/64")
                    .replace("127.0.0.0/8", "::1/128"),
                ..script
            },
        });
        kind.restore(&ns, &foreign);
        let before = kind.save(&ns);
        // A predecessor's rules, adopted.
        kind.full(&ns, old);
        let mirror = kind.full(&ns, plan);
        let made = kind.save(&ns);
        assert!(mirror.is_whole(&with_families(&made)), "{kind:?}");
        let jump = "-A PREROUTING -m comment --comment \"causeway services\" -j CW-SERVICES";
        assert_eq!(made[0].lines().filter(|line| *line == jump).count(), 1, "{kind:?}");
        for damage in [
            "-t nat -F CW-SERVICES",
            "-t nat -F OUTPUT",
            "-t nat -I OUTPUT -j CW-SERVICES",
            "-t filter -D FORWARD -m comment --comment \"causeway forwarding\" -j CW-FORWARD",
            "-t raw -F",
        ] {
            let program = kind.program(IpFamily::V4, "");
            ns.sh(&format!("{} -w {damage}", program.trim_end_matches('-')));
            let saved = kind.save(&ns);
            assert!(!mirror.is_whole(&with_families(&saved)), "{kind:?}: {damage}");
            kind.full(&ns, plan);
            assert!(mirror.is_whole(&with_families(&kind.save(&ns))), "{kind:?}: {damage}");
        }
        // The damage took foreign rules with it: put them back where they were.
        let flushed = format!(
            "*nat\n-F OUTPUT\n{}COMMIT\n*raw\n-F\n{}COMMIT\n",
            lines_of(&before[0], "*nat", "-A OUTPUT"),
            lines_of(&before[0], "*raw", "-A")
        );
        kind.restore(&ns, &[Script { family: IpFamily::V4, text: flushed }]);
        kind.restore(&ns, &cleanup(&with_families(&kind.save(&ns))));
        assert_eq!(kind.save(&ns), before, "{kind:?}");
        assert!(cleanup(&with_families(&kind.save(&ns))).is_empty(), "{kind:?}");
    }
}

fn lines_of(saved: &str, table: &str, prefix: &str) -> String {
    let lines = saved.lines().skip_while(|line| *line != table);
    let lines = lines.take_while(|line| *line != "COMMIT").filter(|line| line.starts_with(prefix));
    lines.fold(String::new(), |text, line| text + line + "\n")
}

/// A thousand services, and one that changes.
#[test]
fn many_services_load_and_change() {
    for kind in KINDS {
        let line = |number: u32| {
            let (high, low) = (number / 200, number % 200 + 1);
            let pod = 2 + number % 100;
            format!("s{number} 172.30.{high}.{low} 80/tcp:{} -> 10.0.1.{pod}:80@n1", 30000 + number)
        };
        let all = services(&(0..1000).map(line).collect::<Vec<_>>().join("\n"));
        let mut plan = Plan::fresh(facts(), &all);
        let ns = Ns::new("many");
        let mut mirror = kind.full(&ns, &plan);
        let key = all.keys().next().expect("a service").clone();
        let more = line(0).replace("-> ", "-> 10.0.1.77:80@n1 ");
        let changes: [(&str, Delta); 2] = [
            ("one endpoint more", plan.update(&[key.clone()].into(), &|_| Some(service(&more)))),
            ("one service less", Delta::default()),
        ];
        for (what, delta) in changes {
            let delta = match what {
                "one service less" => plan.update(&[key.clone()].into(), &|_| None),
                _ => delta,
            };
            kind.restore(&ns, &mirror.change(&plan, &delta));
            assert!(mirror.is_whole(&with_families(&kind.save(&ns))), "{kind:?}: {what}");
        }
    }
}

/// Names from manifests are text within quotes, whatever they hold.
#[test]
fn names_never_become_rules() {
    use causeway_model::ObjectKey;
    let mut all = services("web 172.30.0.10 80/tcp:30080 -> 10.0.1.2:80@n1");
    let nasty = "a\" -j ACCEPT\nCOMMIT\n*filter\n-P INPUT DROP\nCOMMIT\n*nat\n-A OUTPUT -m comment --comment \"$(reboot)'\\";
    let one = all.pop_first().expect("a service").1;
    all.insert(ObjectKey::new("default", nasty), one);
    let plan = Plan::fresh(facts(), &all);
    for kind in KINDS {
        let ns = Ns::new("nasty");
        let mirror = kind.full(&ns, &plan);
        let saved = kind.save(&ns);
        assert!(mirror.is_whole(&with_families(&saved)), "{kind:?}");
        assert!(saved[0].contains(":INPUT ACCEPT"), "{kind:?}: {}", saved[0]);
        kind.restore(&ns, &cleanup(&with_families(&saved)));
        assert!(!kind.save(&ns)[0].contains("CW-"), "{kind:?}");
    }
}
