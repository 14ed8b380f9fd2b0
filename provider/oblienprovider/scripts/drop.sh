# Removes what is left of the upload $2.
rm -rf "$1/in/$2"
