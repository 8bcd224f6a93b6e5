//! A radix trie over bytes, built once and walked often.

use std::ops::Range;

/// Keys to values; walks report the values of all keys that are prefixes of what is walked.
#[derive(Debug, Clone)]
pub(super) struct Trie<V> {
    nodes: Vec<Node<V>>,
    /// The labels of all nodes, one after the other.
    labels: Vec<u8>,
}

#[derive(Debug, Clone)]
struct Node<V> {
    /// What the key goes on with after the first byte that led here.
    label: Range<u32>,
    /// Children by their first byte, sorted.
    first_bytes: Vec<u8>,
    children: Vec<u32>,
    value: Option<V>,
}

impl<V> Default for Trie<V> {
    fn default() -> Self {
        Self {
            nodes: Vec::new(),
            labels: Vec::new(),
        }
    }
}

impl<V> Node<V> {
    fn new(label: Range<u32>) -> Self {
        Self {
            label,
            first_bytes: Vec::new(),
            children: Vec::new(),
            value: None,
        }
    }

    #[inline]
    fn child(&self, byte: u8) -> Option<u32> {
        let position = if self.first_bytes.len() <= 16 {
            self.first_bytes.iter().position(|b| *b == byte)?
        } else {
            self.first_bytes.binary_search(&byte).ok()?
        };
        self.children.get(position).copied()
    }
}

impl<V> Trie<V> {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The value that the key had before.
    pub(super) fn insert(&mut self, key: &[u8], value: V) -> Option<V> {
        self.slot(key).replace(value)
    }

    /// The place of a key's value.
    pub(super) fn slot(&mut self, key: &[u8]) -> &mut Option<V> {
        let node = self.node_for(key);
        #[expect(
            clippy::indexing_slicing,
            reason = "node_for returns an index it made or found"
        )]
        &mut self.nodes[node].value
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "building: every index comes from this trie's own vectors"
    )]
    fn node_for(&mut self, key: &[u8]) -> usize {
        if self.nodes.is_empty() {
            self.nodes.push(Node::new(0..0));
        }
        let mut node = 0;
        let mut rest = key;
        loop {
            // `rest` starts at this node's label.
            let label = self.nodes[node].label.clone();
            let text = &self.labels[label.start as usize..label.end as usize];
            let common = text.iter().zip(rest).take_while(|(a, b)| a == b).count();
            if common < text.len() {
                self.split(node, common);
            }
            rest = &rest[common..];
            let Some((first, tail)) = rest.split_first() else {
                return node;
            };
            node = match self.nodes[node].child(*first) {
                Some(child) => child as usize,
                None => self.add_child(node, *first, tail),
            };
            rest = tail;
        }
    }

    /// Cuts a node's label after `at` bytes: the rest becomes its only child.
    #[expect(
        clippy::indexing_slicing,
        reason = "building: indices come from this trie's vectors"
    )]
    fn split(&mut self, node: usize, at: usize) {
        let label = self.nodes[node].label.clone();
        let cut = label.start + at as u32;
        let first = self.labels[cut as usize];
        let child = self.nodes.len() as u32;
        let top = Node {
            label: label.start..cut,
            first_bytes: vec![first],
            children: vec![child],
            value: None,
        };
        let mut bottom = std::mem::replace(&mut self.nodes[node], top);
        bottom.label = cut + 1..label.end;
        self.nodes.push(bottom);
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "building: indices come from this trie's vectors"
    )]
    fn add_child(&mut self, parent: usize, first: u8, label: &[u8]) -> usize {
        let start = self.labels.len() as u32;
        self.labels.extend_from_slice(label);
        let child = self.nodes.len();
        self.nodes.push(Node::new(start..self.labels.len() as u32));
        let parent = &mut self.nodes[parent];
        let position = parent.first_bytes.partition_point(|b| *b < first);
        parent.first_bytes.insert(position, first);
        parent.children.insert(position, child as u32);
        child
    }

    /// The value of the longest key of at most `limit` bytes that `bytes` starts with.
    #[inline]
    pub(super) fn longest(&self, bytes: impl Iterator<Item = u8>, limit: usize) -> Option<&V> {
        let mut found = None;
        self.walk(bytes.take(limit), |value| found = Some(value));
        found
    }

    /// Calls `each` with the values of all keys that `bytes` starts with, shortest first.
    #[inline]
    pub(super) fn walk<'t>(
        &'t self,
        mut bytes: impl Iterator<Item = u8>,
        mut each: impl FnMut(&'t V),
    ) {
        let mut current = self.nodes.first();
        while let Some(node) = current {
            let label = self
                .labels
                .get(node.label.start as usize..node.label.end as usize)
                .unwrap_or_default();
            for expected in label {
                if bytes.next() != Some(*expected) {
                    return;
                }
            }
            if let Some(value) = &node.value {
                each(value);
            }
            current = bytes
                .next()
                .and_then(|byte| node.child(byte))
                .and_then(|child| self.nodes.get(child as usize));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn walks_report_every_prefix_shortest_first() {
        let mut trie = Trie::default();
        for key in ["", "/a", "/abc", "/abd", "/b", "/abcde"] {
            assert_eq!(trie.insert(key.as_bytes(), key), None);
        }
        assert_eq!(trie.insert(b"/b", "/b"), Some("/b"));
        let mut seen = Vec::new();
        trie.walk(b"/abcdx".iter().copied(), |key| seen.push(*key));
        assert_eq!(seen, ["", "/a", "/abc"]);
        assert_eq!(trie.longest(b"/abcde".iter().copied(), 5), Some(&"/abc"));
        assert_eq!(trie.longest(b"/abcde".iter().copied(), 6), Some(&"/abcde"));
    }
}
