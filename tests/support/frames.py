"""Single frames of the exchange, byte for byte: captured, or from the documentation.

Tests take expected bytes from here, never from an encoder of this project.
"""

TRADE = '{"data":{"E":1790915531026313,"T":1790915531025000,"a":"66605319496","b":"66605329178","e":"trade","m":false,"p":"86642.9","q":"0.07206","s":"BTC_USDC_PERP","t":99419870},"stream":"trade.BTC_USDC_PERP"}'  # noqa: E501
DEPTH = '{"data":{"E":1788367430247494,"T":1788367430246081,"U":4330360995,"a":[["98.97","22.39"]],"b":[],"e":"depth","s":"SOL_USDC","u":4330360995},"stream":"depth.SOL_USDC"}'  # noqa: E501
DEPTH_DELETION = '{"data":{"E":1790134370874574,"T":1790134370874401,"U":6789929,"a":[],"b":[["340.32","0.00"]],"e":"depth","s":"AAPL.US_USDC_PERP","u":6789929},"stream":"depth.AAPL.US_USDC_PERP"}'  # noqa: E501
DEPTH_200MS = '{"data":{"E":1736172778162587,"T":1736172778151673,"U":1802083134,"a":[["219.00","2.98"]],"b":[["218.12","0.02"],["218.60","22.35"],["218.61","13.88"]],"e":"depth","s":"SOL_USDC","u":1802083137},"stream":"depth.200ms.SOL_USDC"}'  # noqa: E501
DEPTH_EMPTY = '{"data":{"E":1754903057555305,"T":1754903057554352,"U":1345937436,"a":[],"b":[],"e":"depth","s":"ETH_USDC","u":1345937436},"stream":"depth.ETH_USDC"}'  # noqa: E501
BOOK_TICKER = '{"data":{"A":"22.39","B":"288.77","E":1788367430247487,"T":1788367430246081,"a":"98.97","b":"98.96","e":"bookTicker","s":"SOL_USDC","u":4330360995},"stream":"bookTicker.SOL_USDC"}'  # noqa: E501
TICKER = '{"data":{"E":1790134358087727,"V":"154927125.41812","c":"86625","e":"ticker","h":"86812.4","l":"85075.4","n":32259,"o":"85486.3","s":"BTC_USDC_PERP","v":"1801.83549"},"stream":"ticker.BTC_USDC_PERP"}'  # noqa: E501
KLINE_EMPTY = '{"data":{"E":1788367440511558,"e":"kline","s":"SOL_USDC","T":"2026-09-02T16:44:00","X":true,"c":null,"h":null,"l":null,"n":0,"o":null,"t":"2026-09-02T16:43:00","v":null},"stream":"kline.1m.SOL_USDC"}'  # noqa: E501
KLINE_OPEN = '{"data":{"E":1754519557526056,"e":"kline","s":"ETH_USDC","T":"2025-08-07T00:00:00","X":false,"c":"3680.520000000","h":"3681.370000000","l":"3667.650000000","n":255,"o":"3670.150000000","t":"2025-08-06T22:00:00","v":"62.2621000"},"stream":"kline.2h.ETH_USDC"}'  # noqa: E501
MARK_PRICE = '{"data":{"E":1790134357847601,"T":1790134357846930,"e":"markPrice","f":"0.00000625","i":"340.52","n":1790136000000,"p":"340.43","s":"AAPL.US_USDC_PERP"},"stream":"markPrice.AAPL.US_USDC_PERP"}'  # noqa: E501
OPEN_INTEREST = '{"stream":"openInterest.SOL_USDC_PERP","data":{"e":"openInterest","E":1694687965941000,"s":"SOL_USDC_PERP","o":"100"}}'  # noqa: E501
LIQUIDATION = '{"stream":"liquidation","data":{"e":"liquidation","E":1694688638091000,"q":"10","p":"18.70","S":"Bid","s":"SOL_USDC","T":567}}'  # noqa: E501
ORDER_ACCEPTED = '{"data":{"E":1788368290063153,"O":"USER","Q":"20.1520","S":"Ask","T":1788368290062979,"V":"RejectTaker","X":"New","Z":"0","e":"orderAccepted","f":"GTC","i":"59887375336","o":"LIMIT","p":"1.0076","q":"20","r":false,"s":"USDT_USDC","t":null,"y":true,"z":"0"},"stream":"account.orderUpdate"}'  # noqa: E501
ORDER_ACCEPTED_2024 = '{"data":{"E":1711899660078481,"S":"Bid","T":1711899660077996,"V":"RejectTaker","X":"New","Z":"0","e":"orderAccepted","f":"GTC","i":"112191056122806272","o":"LIMIT","p":"4.6771","q":"10.8","s":"WIF_USDC","t":null,"z":"0"},"stream":"account.orderUpdate"}'  # noqa: E501
ORDER_FILL = '{"data":{"E":1754939110175879,"L":"4299.16","N":"ETH","O":"USER","Q":"4.30","S":"Bid","T":1754939110174705,"V":"RejectTaker","X":"Filled","Z":"4.299160","e":"orderFill","f":"GTC","i":"5406825793","l":"0.0010","m":false,"n":"0.000001","o":"MARKET","q":"0.0010","r":false,"s":"ETH_USDC","t":2888471,"z":"0.0010"},"stream":"account.orderUpdate.ETH_USDC"}'  # noqa: E501
ORDER_CANCELLED = '{"data":{"E":1788368293114025,"O":"USER","Q":"20.1520","S":"Ask","T":1788368293113270,"V":"RejectTaker","X":"Cancelled","Z":"0","e":"orderCancelled","f":"GTC","i":"59887375336","o":"LIMIT","p":"1.0076","q":"20","r":false,"s":"USDT_USDC","t":null,"y":true,"z":"0"},"stream":"account.orderUpdate"}'  # noqa: E501
POSITION_OPENED = '{"data":{"B":"4236.36","E":1754943862040486,"M":"4235.88650933","P":"-0.000473","Q":"0.0010","T":1754943862040487,"b":"4238.479","e":"positionOpened","f":"0.02","i":5411399049,"l":"0","m":"0.0125","n":"4.23588650933","p":"0","q":"0.0010","s":"ETH_USDC_PERP"},"stream":"account.positionUpdate"}'  # noqa: E501
BALANCE_UPDATE = '{"data":{"A":"10","E":1788368290063168,"L":"20","S":"0","T":1788368290062981,"a":"USDT","e":"balanceUpdate"},"stream":"account.balanceUpdate"}'  # noqa: E501
RFQ_CANDIDATE = '{"stream":"account.rfqUpdate","data":{"e":"rfqCandidate","E":1730225490648996,"R":113392053149171712,"u":113392054083780608,"C":"123","s":"SOL_USDC_RFQ","S":"Bid","q":"10","p":"15.50","X":"New","T":1730225490647080}}'  # noqa: E501
ERROR_INVALID_STREAM = '{"id":null,"error":{"code":4006,"message":"Invalid stream"}}'
ERROR_PARSE = '{"id":null,"error":{"code":4002,"message":"Parse error"}}'
ERROR_WINDOW = '{"id":null,"error":{"code":4008,"message":"Invalid depth window"}}'
ERROR_SIGNATURE = '{"id":null,"error":{"code":4003,"message":"Invalid signature"}}'
