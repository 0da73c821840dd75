module bivouac.dev/bundle/web

go 1.26.0
