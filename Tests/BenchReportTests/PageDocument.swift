import Foundation
import FoundationXML

/// A page, parsed as XML: what stands where.
final class PageDocument: NSObject, XMLParserDelegate {
    struct Element: Equatable {
        var name: String
        var attributes: [String: String]
        var text = ""
        /// Names of the elements it stands in, the outermost first.
        var parents: [String]
    }

    private(set) var elements: [Element] = []
    private var open: [Int] = []

    /// nil where it is not well-formed.
    init?(_ html: String) {
        super.init()
        let parser = XMLParser(data: Data(html.utf8))
        parser.delegate = self
        guard parser.parse() else { return nil }
    }

    func all(_ name: String, class style: String? = nil) -> [Element] {
        elements.filter { $0.name == name && (style == nil || $0.attributes["class"] == style) }
    }

    /// The cells of every row that begins with `cell`.
    func rows(_ cell: String) -> [[String]] {
        var rows: [[String]] = []
        for element in elements {
            if element.name == "tr" { rows.append([]) }
            if element.name == "td" { rows[rows.count - 1].append(element.text) }
        }
        return rows.filter { $0.first == cell }
    }

    func parser(
        _ parser: XMLParser, didStartElement name: String, namespaceURI: String?, qualifiedName: String?,
        attributes: [String: String]
    ) {
        elements.append(Element(name: name, attributes: attributes, parents: open.map { elements[$0].name }))
        open.append(elements.count - 1)
    }

    func parser(_ parser: XMLParser, didEndElement: String, namespaceURI: String?, qualifiedName: String?) {
        open.removeLast()
    }

    func parser(_ parser: XMLParser, foundCharacters text: String) {
        if let last = open.last { elements[last].text += text }
    }
}
