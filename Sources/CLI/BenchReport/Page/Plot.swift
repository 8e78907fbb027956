/// A plot as inline SVG: axes, lines, bars; colours are classes of the page's style.
struct Plot {
    struct Point: Equatable {
        var x: Double
        var y: Double
    }

    /// What is drawn in one colour.
    struct Series {
        enum Shape {
            case line
            case dashed
            case dotted
            /// From the axis up, each as wide as ``Mark/x``.
            case bars([Bar])
        }

        struct Bar {
            var x: ClosedRange<Double>
            var y: ClosedRange<Double>
        }

        /// The class that colours it.
        var style: String
        var shape: Shape
        /// Parts that are not joined: nothing is known between them.
        var parts: [[Point]] = []
    }

    /// What is shown where the pointer is; no script is needed for that.
    struct Note {
        var x: ClosedRange<Double>
        var text: String
    }

    static let width = 480.0
    static let height = 270.0
    private static let (left, right, top, bottom) = (66.0, 14.0, 12.0, 46.0)

    /// Says in words what is to be seen.
    var title: String
    var x: Axis
    var y: Axis
    var xName: String
    var yName: String
    var series: [Series]
    var notes: [Note] = []

    func svg() -> String {
        let (width, height) = (Markup.coordinate(Self.width), Markup.coordinate(Self.height))
        var text = "<svg viewBox=\"0 0 \(width) \(height)\" role=\"img\" aria-label=\"\(Markup.escape(title))\">\n"
        text += grid()
        for one in series { text += draw(one) }
        for note in notes {
            let (from, to) = (across(note.x.lowerBound), across(note.x.upperBound))
            text += rectangle(
                x: from, y: Self.top, width: max(to - from, 0.5), height: Self.height - Self.top - Self.bottom,
                style: "note", title: note.text)
        }
        return text + "</svg>\n"
    }

    // MARK: Parts

    private func grid() -> String {
        var text = ""
        let (base, end) = (Self.height - Self.bottom, Self.width - Self.right)
        for tick in y.ticks {
            let place = Markup.coordinate(up(tick.value))
            text += "<path class=\"grid\" d=\"M\(Markup.coordinate(Self.left)) \(place)H\(Markup.coordinate(end))\"/>\n"
            text += label(tick.label, x: Self.left - 6, y: up(tick.value) + 4, anchor: "end")
        }
        for (index, tick) in x.ticks.enumerated() {
            let place = across(tick.value)
            text += "<path class=\"grid\" d=\"M\(Markup.coordinate(place)) \(Markup.coordinate(Self.top))"
            text += "V\(Markup.coordinate(base))\"/>\n"
            // A name in the middle of the first or the last would touch another, or be cut off.
            let (isFirst, isLast) = (place < Self.left + 16, place > end - 16)
            text += label(
                tick.label, x: isFirst ? place - 4 : isLast ? end + 8 : place, y: base + 19,
                anchor: isFirst ? "start" : isLast ? "end" : "middle",
                style: index % 2 == 1 && x.ticks.count > 4 ? "spare" : "")
        }
        text += "<path class=\"axis\" d=\"M\(Markup.coordinate(Self.left)) \(Markup.coordinate(base))"
        text += "H\(Markup.coordinate(end))\"/>\n"
        text += label(xName, x: (Self.left + end) / 2, y: Self.height - 6, anchor: "middle", style: "name")
        let middle = (Self.top + base) / 2
        text +=
            "<text class=\"name side\" text-anchor=\"middle\" transform=\"translate(13 \(Markup.coordinate(middle))) "
        text += "rotate(-90)\">\(Markup.escape(yName))</text>\n"
        return text
    }

    private func draw(_ series: Series) -> String {
        switch series.shape {
        case .line: path(series, style: "line")
        case .dashed: path(series, style: "line dashed")
        case .dotted: path(series, style: "line dotted")
        case .bars(let bars):
            bars.map { bar in
                let (low, high) = (up(bar.y.lowerBound), up(bar.y.upperBound))
                let (from, to) = (across(bar.x.lowerBound), across(bar.x.upperBound))
                let gap = to - from > 4 ? 1.0 : 0
                return rectangle(
                    x: from + gap / 2, y: high, width: max(to - from - gap, 0.5), height: max(low - high, 0.5),
                    style: "bar \(series.style)")
            }.joined()
        }
    }

    private func path(_ series: Series, style: String) -> String {
        let parts = series.parts.map { part in
            let places = part.map { "\(Markup.coordinate(across($0.x))) \(Markup.coordinate(up($0.y)))" }
            // A point by itself is a dot.
            return places.count == 1 ? "M\(places[0])h0" : "M" + places.joined(separator: "L")
        }
        guard !parts.isEmpty else { return "" }
        return "<path class=\"\(style) \(series.style)\" d=\"\(parts.joined())\"/>\n"
    }

    private func rectangle(
        x: Double, y: Double, width: Double, height: Double, style: String, title: String? = nil
    ) -> String {
        let numbers = [("x", x), ("y", y), ("width", width), ("height", height)]
        let attributes = numbers.map { "\($0.0)=\"\(Markup.coordinate($0.1))\"" }.joined(separator: " ")
        guard let title else { return "<rect class=\"\(style)\" \(attributes)/>\n" }
        return "<rect class=\"\(style)\" \(attributes)><title>\(Markup.escape(title))</title></rect>\n"
    }

    private func label(_ text: String, x: Double, y: Double, anchor: String, style: String = "") -> String {
        guard !text.isEmpty else { return "" }
        let attribute = style.isEmpty ? "" : " class=\"\(style)\""
        return
            "<text\(attribute) text-anchor=\"\(anchor)\" x=\"\(Markup.coordinate(x))\" y=\"\(Markup.coordinate(y))\">"
            + "\(Markup.escape(text))</text>\n"
    }

    private func across(_ value: Double) -> Double {
        Self.left + x.place(value) * (Self.width - Self.left - Self.right)
    }

    private func up(_ value: Double) -> Double {
        let base = Self.height - Self.bottom
        return base - y.place(value) * (base - Self.top)
    }
}
