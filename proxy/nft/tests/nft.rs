//! The same things by `nft`: what it lists of ours, and what we read of its.

mod common;

use causeway_ruleset::{Batch, Family, Op, Statement, TableId, TableState, text};

use common::{batch, client, everything, guard, nft, table};

/// Words of each block, without counts, sorted: nft lists in order of creation.
fn blocks(text: &str) -> Vec<String> {
    let text = text.replace(" packets 0 bytes 0", "");
    let inside = text.split_once('\n').expect("a table").1;
    let mut blocks = inside
        .split("\n\n")
        .map(|block| {
            let lines = block.trim_end_matches(['\n', '}', '\t']).lines();
            lines
                .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
                .collect::<Vec<_>>()
                .join("\n")
        })
        .collect::<Vec<_>>();
    blocks.sort();
    blocks.iter().map(|block| block.replace(",\n", ", ")).collect()
}

fn without_handles(mut state: TableState) -> TableState {
    for (_, rules) in state.chains.values_mut() {
        rules.iter_mut().for_each(|(handle, _)| *handle = 0);
    }
    state
}

fn check(id: &TableId, batch: &Batch) {
    let mut ours = client();
    ours.commit(batch).expect("a commit");
    let state = ours.table(id).expect("a read").expect("a table");
    let family = if id.family == Family::Bridge { "bridge" } else { "inet" };
    let listed = nft(&["list", "table", family, &id.name], "");
    let told = text::table(id, &state);
    for (listed, told) in blocks(&listed).iter().zip(blocks(&told)) {
        for (listed, told) in listed.lines().zip(told.lines()) {
            assert_eq!(listed, told);
        }
        assert_eq!(*listed, told);
    }
    assert_eq!(blocks(&listed).len(), blocks(&told).len());

    let mut theirs = client();
    let input = text::batch(batch);
    nft(&["-c", "-f", "-"], &input);
    nft(&["-f", "-"], &input);
    let read = theirs.table(id).expect("a read").expect("a table");
    let (read, state) = (without_handles(read), without_handles(state));
    for (name, (_, rules)) in &state.chains {
        for (wanted, read) in rules.iter().zip(&read.chains[name].1) {
            assert_eq!(read, wanted);
        }
    }
    for (name, wanted) in &state.sets {
        assert_eq!(read.sets[name], *wanted);
    }
    assert_eq!(read, state);
}

#[test]
fn nft_lists_our_table_as_our_text_and_makes_the_same_of_it() {
    let id = table(Family::Inet, "t");
    check(&id, &everything(&id));
}

#[test]
fn nft_lists_our_bridge_table_as_our_text_and_makes_the_same_of_it() {
    let id = table(Family::Bridge, "b");
    check(&id, &guard(&id));
}

#[test]
fn what_nft_says_and_we_do_not_know_is_kept() {
    let mut client = client();
    let id = table(Family::Inet, "t");
    nft(
        &["-f", "-"],
        "table inet t { chain c { ip saddr 10.0.0.1 limit rate 5/second tcp flags syn drop; }; }",
    );
    let (handle, rule) = client.rules(&id, "c").unwrap().remove(0);
    let known = |one: &&Statement| !matches!(one, Statement::Other(..));
    assert_eq!(rule.statements.iter().filter(known).count(), 3, "{rule:?}");
    let listed = nft(&["list", "table", "inet", "t"], "");
    let chain = || "c".to_owned();
    let again = Op::AddRule { table: id.clone(), chain: chain(), rule: rule.clone() };
    let first = Op::DeleteRule { table: id.clone(), chain: chain(), handle };
    client.commit(&batch(vec![first, again])).unwrap();
    assert_eq!(nft(&["list", "table", "inet", "t"], ""), listed);
    assert_eq!(client.rules(&id, "c").unwrap()[0].1, rule);
}
