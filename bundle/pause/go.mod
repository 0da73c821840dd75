module bivouac.dev/bundle/pause

go 1.26.0
