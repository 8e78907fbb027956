import Core
import Testing

@testable import StorageNodeService

@Suite struct TermDoubtTests {
    private typealias Contact = TermDoubt.Contact
    private let replicas = [n1, n2, n3]

    /// Of the leader n1 in term 4, which saw a promise of term 9 at 1 s.
    private func makeDoubt(promisedTo candidate: NodeAddress? = n3, term: UInt64 = 9) -> TermDoubt {
        var doubt = TermDoubt(leader: n1, patience: .init())
        doubt.saw(.init(term: term, candidate: candidate), leading: 4, at: 1_000)
        return doubt
    }

    @Test func mostPromisesAreInNobodysWay() {
        var doubt = TermDoubt(leader: n1, patience: .init())
        for (term, candidate) in [(UInt64(3), n2 as NodeAddress?), (4, n1), (4, nil), (0, nil)] {
            doubt.saw(.init(term: term, candidate: candidate), leading: 4, at: 0)
            #expect(doubt.promise == nil, "term \(term)")
        }
        #expect(!doubt.isRipe(at: 1 << 40))
        #expect(!doubt.mayRenew(replicas: replicas, isFenced: false, contacts: [n2: .answered], at: 1 << 40))
    }

    /// A term with two leaders: the one half's takes nothing from the other's.
    @Test func theTermItselfMayBelongToAnother() {
        #expect(makeDoubt(promisedTo: n2, term: 4).promise == .init(term: 4, candidate: n2))
    }

    @Test func aPromotionHasTimeToEnd() {
        var doubt = makeDoubt()
        let all = [n2: Contact.answered, n3: .answered]
        #expect(!doubt.isRipe(at: 5_999))
        #expect(!doubt.mayRenew(replicas: replicas, isFenced: false, contacts: all, at: 5_999))
        #expect(doubt.isRipe(at: 6_000))
        #expect(doubt.mayRenew(replicas: replicas, isFenced: false, contacts: all, at: 6_000))
        // The same again is nothing new, nor is what is older.
        doubt.saw(.init(term: 9, candidate: n3), leading: 4, at: 5_000)
        doubt.saw(.init(term: 8, candidate: n2), leading: 4, at: 5_000)
        doubt.saw(.init(term: 9, candidate: nil), leading: 4, at: 5_000)
        #expect(doubt.isRipe(at: 6_000))
        // Another attempt has the same time again.
        doubt.saw(.init(term: 25, candidate: n3), leading: 4, at: 5_000)
        #expect(!doubt.isRipe(at: 9_999) && doubt.isRipe(at: 10_000))
        // And so has this one.
        doubt.failed(at: 10_000)
        #expect(!doubt.isRipe(at: 14_999) && doubt.isRipe(at: 15_000))
    }

    @Test func itEndsWithANewTerm() {
        var doubt = makeDoubt()
        doubt.leads(4)
        #expect(doubt.promise != nil)
        doubt.leads(17)
        #expect(doubt.promise == nil)
        // In between, another has it.
        doubt = makeDoubt()
        doubt.leads(9)
        #expect(doubt.promise != nil)
    }

    @Test func theCandidateHasToBeGoneOrToSayThatItDoesNotLead() {
        let doubt = makeDoubt()
        for (candidate, early, late) in [
            (Contact.answered, true, true), (.refused, true, true), (.silent, false, true), (.isNewer, false, false),
        ] {
            let contacts = [n2: Contact.answered, n3: candidate]
            for (now, expected) in [(UInt64(20_999), early), (21_000, late)] {
                #expect(
                    doubt.mayRenew(replicas: replicas, isFenced: false, contacts: contacts, at: now) == expected,
                    "\(candidate) at \(now)")
            }
        }
        // One that is no replica any more may lead all the same.
        let stranger = NodeAddress(host: "127.0.0.1", port: 9)
        let others = [n2: Contact.answered, n3: .answered]
        #expect(
            !makeDoubt(promisedTo: stranger).mayRenew(
                replicas: replicas, isFenced: false, contacts: others, at: 20_999))
        // This node itself, which did not come to the end of its renewal.
        #expect(
            makeDoubt(promisedTo: n1).mayRenew(
                replicas: replicas, isFenced: false, contacts: [n2: .answered, n3: .silent], at: 6_000))
    }

    /// Somebody else may lead the other half.
    @Test func aMajorityHasToAnswer() {
        let four = replicas + [NodeAddress(host: "127.0.0.1", port: 4)]
        let doubt = makeDoubt()
        let contacts = [n2: Contact.answered, n3: .refused]
        #expect(doubt.mayRenew(replicas: replicas, isFenced: false, contacts: contacts, at: 1 << 40))
        #expect(!doubt.mayRenew(replicas: four, isFenced: false, contacts: contacts, at: 1 << 40))
        #expect(
            !doubt.mayRenew(
                replicas: replicas, isFenced: false, contacts: [n2: .silent, n3: .refused], at: 1 << 40))
        #expect(
            !doubt.mayRenew(replicas: replicas, isFenced: false, contacts: [n2: .isNewer, n3: .answered], at: 1 << 40))
    }

    /// It takes no writes, so nothing is better than two that do; and of a leader seen at work it is certain that it was
    /// there.
    @Test func withoutWritesOrAfterALeaderEverybodyHasToAnswer() {
        let all = [n2: Contact.answered, n3: .answered]
        let most = [n2: Contact.answered, n3: .refused]
        for (doubt, isFenced) in [(makeDoubt(), true), (makeDoubt(promisedTo: nil), false)] {
            #expect(doubt.mayRenew(replicas: replicas, isFenced: isFenced, contacts: all, at: 6_000))
            #expect(!doubt.mayRenew(replicas: replicas, isFenced: isFenced, contacts: most, at: 1 << 40))
        }
    }
}
