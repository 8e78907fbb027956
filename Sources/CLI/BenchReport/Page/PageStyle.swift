/// How a page looks. Colours of operations are those of Okabe and Ito and of Tol, which people with any kind of colour
/// blindness tell apart; lighter ones of them on a dark ground.
enum PageStyle {
    static let css = """
        :root{color-scheme:light dark;--ground:#f7f7f5;--card:#fff;--ink:#1b1c1e;--soft:#5f6368;--rule:#e2e2de;\
        --bad:#b3261e;--c0:#0072b2;--c1:#d55e00;--c2:#008f68;--c3:#aa4499;--c4:#b8860b;--c5:#555b66;--c6:#332288}
        @media(prefers-color-scheme:dark){:root{--ground:#131416;--card:#1c1e21;--ink:#e8e8e6;--soft:#a0a4aa;\
        --rule:#33363b;--bad:#ff8a80;--c0:#56b4e9;--c1:#ff9a4d;--c2:#2fc79a;--c3:#e48fd0;--c4:#f0d442;--c5:#b4bac4;\
        --c6:#a99cf0}}
        *{box-sizing:border-box}
        body{margin:0;background:var(--ground);color:var(--ink);font:15px/1.5 system-ui,sans-serif;\
        font-variant-numeric:tabular-nums}
        main,header,footer{max-width:1120px;margin:0 auto;padding:0 20px}
        header{padding-top:28px}
        h1{font-size:26px;line-height:1.25;margin:0;font-weight:650;letter-spacing:-.01em}
        h2{font-size:18px;margin:32px 0 10px;font-weight:650}
        p{margin:4px 0;color:var(--soft)}
        .tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(136px,1fr));gap:12px;margin:20px 0 0}
        .tile,figure,.wide,dl{background:var(--card);border:1px solid var(--rule);border-radius:10px}
        .tile{padding:12px 14px}
        .tile b{display:block;font-size:25px;line-height:1.25;font-weight:650;white-space:nowrap}
        .tile span{color:var(--soft);font-size:13px;display:block;line-height:1.35}
        .bad b,td.bad{color:var(--bad)}
        .plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,400px),1fr));gap:16px;margin-top:16px}
        figure{margin:0;padding:14px 16px 12px;min-width:0}
        figcaption{font-weight:600}
        figcaption small{display:block;font-weight:400;font-size:13px;color:var(--soft)}
        svg{display:block;width:100%;height:auto;margin-top:6px}
        svg text{font-size:12px;fill:var(--soft)}
        svg .name{font-size:12px;fill:var(--ink)}
        .grid{stroke:var(--rule);stroke-width:1;fill:none}
        .axis{stroke:var(--soft);stroke-width:1;fill:none}
        .line{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}
        .dashed{stroke-width:1.6;stroke-dasharray:7 4;stroke-linecap:butt}
        .dotted{stroke-width:1.8;stroke-dasharray:.1 4}
        .note{fill:var(--ink);opacity:0}
        .note:hover{opacity:.08}
        .c0{--own:var(--c0)}.c1{--own:var(--c1)}.c2{--own:var(--c2)}.c3{--own:var(--c3)}.c4{--own:var(--c4)}\
        .c5{--own:var(--c5)}.c6{--own:var(--c6)}
        .line{stroke:var(--own)}.bar{fill:var(--own)}
        .legend{display:flex;flex-wrap:wrap;gap:2px 18px;margin:6px 0 0;padding:0;list-style:none;font-size:13px}
        .legend svg{display:inline-block;width:26px;height:10px;margin:0 7px 0 0;vertical-align:middle}
        .wide{overflow-x:auto}
        table{border-collapse:collapse;width:100%;font-size:14px}
        th,td{padding:7px 14px;text-align:right;white-space:nowrap}
        th{font-weight:600;color:var(--soft);font-size:13px}
        th:first-child,td:first-child{text-align:left}
        tr+tr td,tbody tr td{border-top:1px solid var(--rule)}
        td .dot{display:inline-block;width:10px;height:10px;border-radius:3px;background:var(--own);margin-right:8px}
        .pairs{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,400px),1fr));gap:16px}
        .pairs h2{margin-bottom:10px}
        dl{margin:0;padding:6px 16px;display:grid;grid-template-columns:max-content 1fr;font-size:14px}
        dt,dd{padding:5px 0;margin:0;overflow-wrap:anywhere}
        dt{color:var(--soft);padding-right:24px}
        dd{text-align:right}
        details{margin-top:16px}
        summary{cursor:pointer;color:var(--soft);padding:4px 0}
        footer{padding-top:28px;padding-bottom:40px;font-size:13px}
        @media(max-width:640px){body{font-size:14px}main,header,footer{padding-left:12px;padding-right:12px}\
        .tile b{font-size:21px}h1{font-size:22px}figure{padding:12px 10px}svg text,svg .name{font-size:16px}\
        svg .spare,svg .side{display:none}th,td{padding:6px 10px}}
        @media print{.note{display:none}body{background:#fff}figure,.tile{break-inside:avoid}}
        """
}
